"""Recipes: what ships is sound, and a mistake becomes one sentence."""

import dataclasses

import pytest
import yaml

from r1nb.errors import UserError
from r1nb.machine.configs import grpo_config
from r1nb.machine.engine import compute_dtype
from r1nb.recipes.recipe import build_recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_are_complete(name):
    recipe = load_recipe(name)
    needed = {
        "learning_rate", "optim", "weight_decay", "max_grad_norm", "lr_scheduler_type",
        "num_generations", "per_device_train_batch_size", "gradient_accumulation_steps",
        "max_completion_length", "temperature", "top_p", "top_k", "loss_type", "scale_rewards",
        "beta", "epsilon", "num_iterations", "importance_sampling_level", "report_to", "seed",
    }  # fmt: skip
    assert needed <= set(recipe.grpo)
    assert 10 <= len(recipe.table()) <= 15
    countdown = {"llama31-8b-countdown": 2, "countdown-cpu": 1.1}  # R1's weights, and TinyZero's
    assert sum(recipe.rewards.values()) == countdown.get(name, 5)


def test_the_seed_recipe_keeps_the_articles_numbers():
    recipe = load_recipe("llama31-8b-seed")
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.model.max_seq_length) == (32, 32, 512)
    wanted = {
        "learning_rate": 5e-6, "adam_beta1": 0.9, "adam_beta2": 0.99, "weight_decay": 0.1,
        "warmup_steps": 0.1, "lr_scheduler_type": "cosine", "optim": "paged_adamw_8bit",
        "num_generations": 6, "max_completion_length": 200, "max_steps": 250, "save_steps": 250,
        "max_grad_norm": 0.1, "seed": 1337,
    }  # fmt: skip
    assert {key: recipe.grpo[key] for key in wanted} == wanted


def test_the_seeds_cluster_recipe_keeps_its_yamls_numbers(monkeypatch):
    recipe = load_recipe("llama31-8b-seed-4gpu")
    same = {
        "learning_rate": 5e-7, "lr_scheduler_type": "cosine", "max_steps": 450, "beta": 0.001,
        "gradient_accumulation_steps": 8, "max_completion_length": 1024, "num_generations": 8, "seed": 1337,
        "use_vllm": True, "gradient_checkpointing": True, "logging_strategy": "steps",
        "gradient_checkpointing_kwargs": {"use_reentrant": False}, "save_strategy": "steps",
        "save_steps": 25,
    }  # fmt: skip
    assert {key: recipe.grpo[key] for key in same} == same
    assert recipe.model.model_name == "meta-llama/Llama-3.1-8B-Instruct"
    assert recipe.lora is None
    # Where it stands elsewhere now: the recipe says why.
    assert recipe.data.max_prompt_length == 256  # max_prompt_length
    assert recipe.grpo["warmup_steps"] == 0.03  # warmup_ratio
    assert recipe.grpo["vllm_mode"] == "server"  # vllm_device: cuda:3
    assert recipe.model.processes == 3  # --num_processes
    prompts = 1 * 8 * 3  # per_device_train_batch_size counted prompts
    assert recipe.batch_size * 3 == prompts * 8 == 192
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    assert compute_dtype(recipe.model) == "bfloat16"  # torch_dtype, bf16
    # What is changed.
    assert (recipe.grpo["logging_steps"], recipe.grpo["report_to"]) == (1, "none")  # 2, wandb


def test_a_recipe_without_an_adapter():
    recipe = load_recipe("tiny-cpu", lora=None)
    assert recipe.lora is None
    assert build_recipe(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))).lora is None
    with pytest.raises(UserError, match="r = 8 is the adapter's, and this recipe has none"):
        load_recipe("llama31-8b-seed-4gpu", r=8)


def test_grpo_config_says_what_the_recipe_says(tiny_recipe, tmp_path):
    args = grpo_config(tiny_recipe, tmp_path)
    for key, value in tiny_recipe.grpo.items():
        got = getattr(args, key)
        assert (getattr(got, "value", got) or value) == value or got == [], key
    assert args.reward_weights == [1.0] * 5


def test_a_recipe_survives_its_own_yaml(tiny_recipe):
    again = build_recipe(yaml.safe_load(yaml.safe_dump(tiny_recipe.to_dict())))
    assert dataclasses.asdict(again) == dataclasses.asdict(tiny_recipe)


def test_overrides_from_outside(monkeypatch, tmp_path):
    folder = str(tmp_path / "my runs")
    monkeypatch.setenv("R1NB_SET", f"max_steps=5 learning_rate=5e-6 runs_dir='{folder}'")
    recipe = load_recipe(max_steps=9)
    assert recipe.grpo["max_steps"] == 5
    assert recipe.grpo["learning_rate"] == 5e-6
    assert recipe.output.runs_dir == folder
    monkeypatch.setenv("R1NB_SET", "recipe=smollm2-135m sft.max_steps=7")
    recipe = load_recipe("tiny-cpu")
    assert (recipe.name, recipe.sft["max_steps"]) == ("smollm2-135m", 7)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"recipe": "tiny-cp"}, ["tiny-cp", "did you mean 'tiny-cpu'"]),
        ({"recipe": "none.yaml"}, ["none.yaml"]),
        ({"max_stepz": 3}, ["max_stepz", "did you mean 'max_steps'"]),
        ({"learning_rate": "fast"}, ["grpo.learning_rate", "'fast'", "number"]),
        ({"max_steps": 2.5}, ["grpo.max_steps", "2.5"]),
        ({"engine": "jax"}, ["engine", "'jax'", "unsloth"]),
        ({"num_generations": 1}, ["num_generations = 1", "at least 2"]),
        ({"num_generations": 7}, ["7", "64", "63 or 70"]),
        ({"max_steps": 0}, ["max_steps = 0", "at least 1"]),
        ({"eval_every": 0}, ["eval_every = 0", "at least 1"]),
        ({"r": 0}, ["r = 0", "at least 1"]),
        ({"per_device_train_batch_size": 0}, ["per_device_train_batch_size = 0", "at least 1"]),
        ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps = 0", "at least 1"]),
        ({"num_iterations": 0}, ["num_iterations = 0", "at least 1"]),
        ({"seed": -1}, ["seed = -1", "at least 0"]),
        ({"max_completion_length": None}, ["max_completion_length = None", "at least 1"]),
        ({"learning_rate": -1.0}, ["learning_rate = -1.0", "at least 0"]),
        ({"temperature": 0.0}, ["temperature = 0.0", "above 0"]),
        ({"lora_dropout": 2.0}, ["lora_dropout = 2.0", "below 1"]),
        ({"loss_type": "dapoo"}, ["'dapoo'", "did you mean 'dapo'"]),
        ({"scale_rewards": "grup"}, ["'grup'", "did you mean 'group'"]),
        ({"importance_sampling_level": "tok"}, ["'tok'", "did you mean 'token'"]),
        ({"save_only_model": True}, ["save_only_model", "set by r1nb"]),
        ({"sft.learning_rate": 1e-3}, ["section 'sft' lacks max_steps"]),
        ({"sft.max_steps": 2, "sft.disable_tqdm": False}, ["sft.disable_tqdm", "set by r1nb"]),
        ({"sft.max_steps": 2, "sft.lr_scheduler_type": "linaer"}, ["TRL refuses", "linaer"]),
        ({"dtype": "float23"}, ["'float23'", "float32"]),
        ({"optim": "adamw_torhc"}, ["TRL refuses", "adamw_torhc"]),
        ({"output_dir": "x"}, ["output_dir", "set by r1nb"]),
        ({"test_splits": []}, ["test_splits is empty"]),
        ({"train_split": "test"}, ["'test'", "never train"]),
        ({"train_split": "test_unseen_kinds"}, ["never train"]),
        ({"max_completion_length": 1000}, ["1192", "320"]),
        ({"runs_dir": "/proc/runs"}, ["/proc/runs", "cannot be written"]),
        ({"lora": 5}, ["lora = 5"]),
        ({"lora": None, "load_in_4bit": True}, ["trains all weights", "load_in_4bit=false"]),
    ],
)
def test_a_mistake_becomes_one_sentence(overrides, words):
    with pytest.raises(UserError) as caught:
        load_recipe(**overrides)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ["not valid YAML", "line"]),
        ("just words", ["no sections"]),
        ("modell: {}", ["unknown section 'modell'", "did you mean 'model'"]),
        ("model: {model_name: x}", ["model", "engine"]),
        ("model: tiny-policy", ["section 'model'", "key: value"]),
    ],
)
def test_a_broken_recipe_file_becomes_one_sentence(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(str(path))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["test_splits=[test", "runs_dir='x", "max_steps"])
def test_a_slip_in_r1nb_set_becomes_one_sentence(monkeypatch, text):
    monkeypatch.setenv("R1NB_SET", text)
    with pytest.raises(UserError, match="R1NB_SET"):
        load_recipe()


def test_a_recipe_without_what_training_needs_is_refused():
    raw = load_recipe().to_dict()
    del raw["grpo"]["max_completion_length"]
    with pytest.raises(UserError, match="lacks max_completion_length"):
        build_recipe(raw)


def test_local_folders_stay_right_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe(dataset="mine").data.dataset == str(tmp_path / "mine")


def test_rewards_are_checked(tmp_path):
    raw = load_recipe().to_dict()
    for rewards, word in [
        ({"correctnes_reward_func": 1.0}, "did you mean 'correctness_reward_func'"),
        ({"correctness_reward_func": -1.0}, "at least 0"),
        ({"correctness_reward_func": 0.0}, "above 0"),
    ]:
        with pytest.raises(UserError, match=word):
            build_recipe(raw | {"rewards": rewards})


@pytest.mark.parametrize(
    ("tracker", "words"),
    [
        ("trackoi", "did you mean 'trackio'"),
        ("all", "one by one"),
        ("swanlab", "needs its package, which is missing: pip install swanlab"),
        ("wandb", "set WANDB_API_KEY, or WANDB_MODE=offline"),
    ],
)
def test_a_tracker_that_cannot_work_is_refused_at_once(monkeypatch, tmp_path, tracker, words):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be kept
    if tracker == "wandb":  # as if it were installed
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(UserError, match=words):
        load_recipe(report_to=tracker)


def test_no_tracker_is_the_default():
    assert {load_recipe(name).grpo["report_to"] for name in recipe_names()} == {"none"}
