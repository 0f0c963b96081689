"""A model by name with recipe "auto": the recipe that is fitted to it, and what the user sets himself."""

import pytest

from r1nb.errors import UserError
from r1nb.machine import fitting
from r1nb.machine.cards import machine_with
from r1nb.machine.configs import check_configs
from r1nb.machine.fitting import FUSED, choose_recipe, recipe_for
from r1nb.machine.hardware import Machine
from r1nb.machine.known_models import SHAPES
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


def test_a_card_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r"Qwen3-4B does not fit the card: choose a smaller model\."):
        fitted("Qwen3-4B", "4")


def test_on_a_processor_a_small_model_gets_the_recipe_for_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fitting, "this_machine", lambda: Machine(2, 24))
    recipe = choose_recipe(model_name="Qwen/Qwen3-0.6B", runs_dir=str(tmp_path))
    assert recipe.name == "qwen3-0.6b-cpu"
    assert recipe.grpo["use_cpu"]
    assert recipe.batch_size == load_recipe("qwen25-0.5b-cpu").batch_size
    said = capsys.readouterr().out
    assert "Recipe qwen3-0.6b-cpu: Qwen3-0.6B on a processor, like qwen25-0.5b-cpu, but\n" in said
    assert "\n  chat_template_kwargs = {'enable_thinking': False}: " in said


def test_on_a_processor_a_large_model_is_refused_and_a_tiny_one_gets_the_tiny_recipe():
    with pytest.raises(UserError, match=r"SmolLM3-3B has 3.1 billion .* --card 4090 model_name=unsloth/Smol"):
        recipe_for("auto", Machine(2, 24), model_name="unsloth/SmolLM3-3B")
    assert recipe_for("auto", Machine(2, 24), model_name="tiny-countdown").name == "tiny-cpu"
