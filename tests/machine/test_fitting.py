"""A model by name with recipe "auto": the recipe that is fitted to it, and what the user sets himself."""

import os

import pytest

from r1nb.errors import UserError
from r1nb.machine import engine, fitting
from r1nb.machine.cards import machine_with
from r1nb.machine.configs import check_configs
from r1nb.machine.fitting import FUSED, choose_recipe, recipe_for
from r1nb.machine.hardware import Machine
from r1nb.machine.known_models import SHAPES, published_config, short_name, thinks
from r1nb.machine.plan import load_empty, plan_run
from r1nb.recipes.loading import load_recipe


def fitted(model, card, **given):
    return recipe_for("auto", machine_with(card), model_name=f"unsloth/{model}", **given)


@pytest.mark.parametrize("model", SHAPES)
def test_each_known_model_gets_a_recipe_that_fits_the_card(model):
    for card in ("t4", "4090", "a100-40", "h100"):
        recipe = fitted(model, card)
        plan = plan_run(recipe, machine_with(card))
        assert plan.peak_gb < 0.95 * plan.card_gb
        assert plan.completions >= recipe.batch_size
        assert recipe.group_size >= 8
        assert recipe.model.max_seq_length == 320 + recipe.grpo["max_completion_length"]
        assert recipe.name.startswith(model.lower())
        check_configs(recipe)
        learns = [name for name, weight in load_empty(recipe).named_parameters() if weight.requires_grad]
        each_layer = 4 if model.startswith("Phi") else 7
        assert len(learns) == 2 * each_layer * SHAPES[model][3]
        assert not any("lm_head" in name or "vision" in name for name in learns)


NO_THOUGHTS = {"enable_thinking": False}


@pytest.mark.parametrize(
    ("model", "card", "expected"),
    [
        ("Qwen3-1.7B", "4090", {"load_in_4bit": False, "max_completion_length": 1280, "learning_rate": 3e-5,
                                "chat_template_kwargs": NO_THOUGHTS, "layout": "reasoning"}),
        ("Qwen3-1.7B", "a100-40", {"max_completion_length": 2048, "layout": "think",
                                   "chat_template_kwargs": None}),
        ("Qwen3-4B", "t4", {"load_in_4bit": False, "max_completion_length": 448, "learning_rate": 2e-5}),
        ("Qwen3-4B-unsloth-bnb-4bit", "4090", {"load_in_4bit": True}),
        ("Qwen2.5-7B-Instruct", "4090", {"load_in_4bit": True, "chat_template_kwargs": None}),
        ("Qwen2.5-7B-Instruct", "a100-40", {"load_in_4bit": False, "num_generations": 8}),
        ("Llama-3.2-3B-Instruct", "h100", {"num_generations": 16, "per_device_train_batch_size": 16}),
        ("gemma-3-1b-it", "t4", {"fast_inference": False, "use_vllm": False, "eval_batch_size": 16}),
        ("gemma-3-1b-it", "4090", {"fast_inference": True, "use_vllm": True, "eval_batch_size": 100}),
        ("SmolLM3-3B", "4090", {"fast_inference": False, "chat_template_kwargs": NO_THOUGHTS}),
        ("Phi-4-mini-instruct", "4090", {"target_modules": FUSED, "fast_inference": True}),
        ("Qwen3-4B", "8", {"load_in_4bit": True, "max_completion_length": 448}),
        ("Qwen3-4B", "h100", {"num_generations": 16}),
    ],
)  # fmt: skip
def test_what_is_decided_for_a_model_on_a_card_and_why(model, card, expected):
    recipe = fitted(model, card)
    found = dict(recipe.model) | dict(recipe.lora) | dict(recipe.data) | dict(recipe.evaluation) | recipe.grpo
    assert {key: found.get(key) for key in expected} == expected
    first, *reasons = recipe.about.split("\n  ")
    assert first.endswith(", but")
    for line in reasons:
        key = line.partition(" = ")[0]
        assert line == f"{key} = {found[key]!r}: {recipe.why[key]}"
    assert {"load_in_4bit", "max_completion_length", "num_generations"} <= recipe.why.keys()


def test_without_room_for_the_training_the_memory_share_is_lowered():
    """Without standby, vLLM keeps its cache on the card during training."""
    shares = []
    for length in (448, 4000):
        recipe = fitted("Qwen3-1.7B", "t4", unsloth_vllm_standby=False, max_completion_length=length)
        assert plan_run(recipe, machine_with("t4")).fits
        shares.append(recipe.model.gpu_memory_utilization)
    assert shares[0] > shares[1]


@pytest.mark.parametrize(
    ("model", "card", "given", "expected"),
    [
        *[("Qwen3-1.7B", card, {"num_generations": n}, {"per_device_train_batch_size": n})
          for card, n in (("4090", 6), ("4090", 12), ("t4", 5), ("t4", 16))],
        ("Qwen3-1.7B", "t4", {"per_device_train_batch_size": 4}, {"num_generations": 8}),
        ("Qwen3-1.7B", "t4", {"per_device_train_batch_size": 16}, {"num_generations": 8}),
        ("Qwen3-4B", "4090", {"fast_inference": False, "use_vllm": False, "max_completion_length": 2048},
         {"eval_batch_size": 16}),
        ("Qwen3-1.7B", "4090", {"sft.learning_rate": 1e-4, "sft.max_steps": 9}, {"learning_rate": 3e-5}),
        ("Phi-4-mini-instruct", "4090", {"lora": {"r": 8, "lora_alpha": 8, "target_modules": ["o_proj"]}},
         {"target_modules": ["o_proj"], "r": 8}),
    ],
)  # fmt: skip
def test_the_rest_follows_what_the_user_sets(model, card, given, expected):
    recipe = fitted(model, card, **given)
    found = dict(recipe.lora) | dict(recipe.evaluation) | recipe.grpo
    assert {key: found[key] for key in expected} == expected
    assert plan_run(recipe, machine_with(card)).fits


def test_what_the_user_sets_stays():
    given = {
        "load_in_4bit": True, "max_completion_length": 512, "num_generations": 4, "learning_rate": 1e-6,
        "layout": "think", "gpu_memory_utilization": 0.5, "max_steps": 7, "name": "first-try",
    }  # fmt: skip
    recipe = fitted("Qwen3-1.7B", "4090", **given)
    found = dict(recipe.model) | dict(recipe.data) | recipe.grpo | {"name": recipe.name}
    assert {key: found[key] for key in given} == given
    assert recipe.grpo["per_device_train_batch_size"] == 4
    assert "chat_template_kwargs" not in recipe.grpo
    assert not given.keys() & {line.split(" ")[0] for line in recipe.about.split("\n  ")}


def test_r1nb_set_can_name_the_model_and_overrides_what_is_decided(monkeypatch):
    monkeypatch.setenv("R1NB_SET", "recipe=auto model_name=unsloth/Qwen3-0.6B load_in_4bit=true")
    recipe = recipe_for("tiny-cpu", machine_with("4090"))
    assert (recipe.name, recipe.model.load_in_4bit) == ("qwen3-0.6b-24gb", True)


def test_another_recipe_than_auto_only_gets_the_model():
    machine, model = machine_with("4090"), "unsloth/Qwen3-1.7B"
    recipe = recipe_for("llama31-8b-24gb", machine, model_name=model)
    assert recipe == load_recipe("llama31-8b-24gb", model_name=model)


@pytest.mark.parametrize(
    ("model", "card", "given", "words"),
    [
        ("Qwen3-4B", "4", {}, "Qwen3-4B does not fit the card: choose a smaller model"),
        ("Qwen3-4B", "4", {"load_in_4bit": True}, "Qwen3-4B does not fit the card: choose a smaller model"),
        ("Qwen2.5-7B-Instruct", "t4", {"load_in_4bit": False},
         "does not fit Tesla T4: leave out load_in_4bit, or choose a smaller model"),
        ("Qwen3-4B", "t4", {"num_generations": "many"}, "num_generations = 'many': must be a valid integer"),
        ("Qwen3-4B", "t4", {"max_completion_length": 60000, "eval_batch_size": 9},
         "leave out eval_batch_size, max_completion_length, or choose a smaller model"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_settings_that_may_be_the_cause(model, card, given, words):
    with pytest.raises(UserError, match=rf"{words}\."):
        fitted(model, card, **given)


def test_before_ampere_the_plan_is_made_without_standby(monkeypatch):
    """Unsloth is imported by load_empty, and reads the setting then."""
    seen, turing = [], Machine(8, 64, "Quadro RTX 6000", 25.0, (7, 5))
    monkeypatch.setattr(fitting, "load_empty", lambda recipe: seen.append(recipe) or load_empty(recipe))
    recipe = recipe_for("auto", turing, model_name="unsloth/Qwen3-1.7B")
    assert not any(each.model.unsloth_vllm_standby for each in [*seen, recipe])
    assert f"\n  gpu_memory_utilization = {recipe.model.gpu_memory_utilization!r}: " in recipe.about
    assert plan_run(recipe, turing).fits


def test_of_two_gpus_one_is_chosen_before_torch_looks_for_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(engine.glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
    seen = []
    monkeypatch.setattr(
        fitting, "this_machine", lambda: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]) or Machine(2, 24)
    )
    choose_recipe(runs_dir=str(tmp_path))
    assert seen == ["0"]
    assert "This machine has 2 GPUs, and r1nb uses the first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unsloth/Qwen3-8B", True),
        ("unsloth/Qwen3-14B-unsloth-bnb-4bit", True),
        ("HuggingFaceTB/SmolLM3-3B", True),
        ("Qwen/Qwen3-4B-Instruct-2507", False),
        ("unsloth/SmolLM3-3B-Base", False),
        ("someone/Qwen3-8B", False),
    ],
)
def test_which_models_of_the_hub_can_think(name, expected):
    assert thinks(name) == expected


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("template", ["{% if enable_thinking %}<think>{% endif %}", "{{ messages }}"])
def test_a_folder_can_think_if_its_chat_template_can(tmp_path, file, template):
    folder = tmp_path / "1.7b" / "1"  # as on Kaggle
    published_config("unsloth/Qwen3-1.7B").save_pretrained(folder)
    (folder / file).write_text(template)
    recipe = recipe_for("auto", machine_with("t4"), model_name=str(folder))
    off = NO_THOUGHTS if "enable_thinking" in template else None
    assert (recipe.name, recipe.grpo.get("chat_template_kwargs")) == ("1.7b-1-16gb", off)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("unsloth/Qwen3-4B-unsloth-bnb-4bit", "Qwen3-4B"),
        ("/kaggle/input/qwen-3/transformers/1.7b/1", "1.7b-1"),
        (f"/hub/models--Qwen--Qwen3-1.7B/snapshots/{40 * 'a'}", "Qwen3-1.7B"),
        ("/models/Qwen3-1.7B/", "Qwen3-1.7B"),
        ("snapshots/1", "1"),
        ("1", "1"),
    ],
)
def test_a_model_has_a_short_name(name, short):
    assert short_name(name) == short


def test_on_a_processor_a_small_model_gets_the_recipe_for_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fitting, "this_machine", lambda: Machine(2, 24))
    recipe = choose_recipe(model_name="Qwen/Qwen3-0.6B", runs_dir=str(tmp_path))
    assert recipe.name == "qwen3-0.6b-cpu"
    assert recipe.grpo["use_cpu"]
    assert recipe.batch_size == load_recipe("qwen25-0.5b-cpu").batch_size
    said = capsys.readouterr().out
    assert "Recipe qwen3-0.6b-cpu: Qwen3-0.6B on a processor, like qwen25-0.5b-cpu, but\n" in said
    assert "\n  chat_template_kwargs = {'enable_thinking': False}: " in said


@pytest.mark.parametrize(
    ("memory", "given", "expected"),
    [
        (24, {"r": 8}, {"r": 8}),
        (24, {"max_completion_length": 512}, {"max_seq_length": 832}),
        (24, {"per_device_train_batch_size": 4}, {"gradient_accumulation_steps": 16}),
        (24, {"per_device_train_batch_size": 1}, {"gradient_accumulation_steps": 64}),
        (24, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, {"eval_batch_size": 8}),
        (24, {"num_generations": 6}, {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 6}),
        (24, {"num_generations": 6, "gradient_accumulation_steps": 1}, {"per_device_train_batch_size": 6}),
        (13, {}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 16,
                  "eval_batch_size": 64}),
        (14, {"dtype": "float32"}, {"per_device_train_batch_size": 4, "eval_batch_size": 64}),
    ],
)  # fmt: skip
def test_on_a_processor_the_rest_follows_the_memory_and_what_the_user_sets(memory, given, expected):
    given = {"dtype": "bfloat16"} | given
    recipe = recipe_for("auto", Machine(2, memory), model_name="unsloth/Qwen3-0.6B", **given)
    found = dict(recipe.model) | dict(recipe.lora) | dict(recipe.evaluation) | recipe.grpo
    assert {key: found[key] for key in expected} == expected
    assert {key: found[key] for key in given} == given
    assert recipe.batch_size % recipe.group_size == 0


def test_on_a_processor_a_large_model_is_refused_and_a_tiny_one_gets_the_tiny_recipe():
    with pytest.raises(UserError, match=r"SmolLM3-3B has 3.1 billion .* --card 4090 model_name=unsloth/Smol"):
        recipe_for("auto", Machine(2, 24), model_name="unsloth/SmolLM3-3B")
    assert recipe_for("auto", Machine(2, 24), model_name="tiny-countdown").name == "tiny-cpu"
