"""TRL's configurations for a recipe, what TRL refuses, and the steps after which a run can be resumed."""

import pytest

from r1nb.errors import UserError
from r1nb.machine.configs import check_configs, grpo_config, sft_config, steps_between_saves
from r1nb.recipes.loading import load_recipe


def test_both_configs_have_the_values_of_the_recipe(tmp_path):
    recipe = load_recipe("tiny-r1", rewards={"int_reward_func": 0.5, "correctness_reward_func": 2.0})
    grpo, sft = grpo_config(recipe, tmp_path), sft_config(recipe, tmp_path)
    assert (grpo.max_steps, sft.max_steps) == (recipe.grpo["max_steps"], recipe.sft["max_steps"])
    assert grpo.reward_weights == [0.5, 2.0]
    assert grpo.output_dir == sft.output_dir == str(tmp_path)
    assert (grpo.log_completions, grpo.disable_tqdm, sft.disable_tqdm) == (True, True, True)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ({}, 1),
        ({"gradient_accumulation_steps": 4}, 1),  # all completions of a batch are used in one step
        ({"num_iterations": 3}, 3),
        ({"gradient_accumulation_steps": 4, "num_iterations": 2}, 2),
        ({"steps_per_generation": 2}, 2),
        ({"steps_per_generation": 6, "gradient_accumulation_steps": 4}, 3),
        ({"generation_batch_size": 192}, 3),
        ({"logging_steps": 4}, 4),
        ({"logging_steps": 4, "num_iterations": 6}, 12),
    ],
)
def test_a_run_can_be_resumed_only_after_a_whole_batch_of_completions(overrides, steps):
    recipe = load_recipe("tiny-cpu", save_steps=steps, **overrides)
    assert steps_between_saves(grpo_config(recipe, "unused")) == steps
    check_configs(recipe)
    check_configs(load_recipe("tiny-cpu", save_strategy="no", save_steps=1, **overrides))
    if steps > 1:
        with pytest.raises(UserError, match=f"a run can be resumed after every {steps} steps only"):
            check_configs(load_recipe("tiny-cpu", save_steps=2 * steps - 1, **overrides))
        with pytest.raises(UserError, match=f"a run can be resumed after every {steps} steps only"):
            check_configs(load_recipe("tiny-cpu", save_strategy="epoch", **overrides))


@pytest.mark.parametrize("key", ["report_to", "sft.report_to"])
@pytest.mark.parametrize(
    ("tracker", "words"),
    [
        ("trackoi", "TRL refuses the recipe: trackoi is not supported, only .* trackio, .* are supported"),
        (["tensorboard", "trackoi"], "trackoi is not supported"),
        ("swanlab", "report_to = 'swanlab' needs its package, which is missing: pip install swanlab"),
        ("wandb", "set WANDB_API_KEY or WANDB_MODE=offline"),
    ],
)
def test_a_tracker_that_cannot_work_is_refused_before_training(monkeypatch, tmp_path, key, tracker, words):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # a saved login would be there
    recipe = load_recipe("tiny-r1", **{key: tracker})
    if tracker == "wandb":  # pretend that it is installed
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(UserError, match=words):
        check_configs(recipe)


def test_wandb_is_accepted_offline_and_with_a_saved_login(monkeypatch, tmp_path):
    recipe = load_recipe("tiny-r1", report_to="wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_configs(recipe)
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    check_configs(recipe)


@pytest.mark.parametrize("nothing", ["none", [], "all"])  # "all" means all that are installed: here none
def test_no_tracker_is_fine(monkeypatch, nothing):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_configs(load_recipe("tiny-r1", report_to=nothing))


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"lr_scheduler_type": "linaer"}, "linaer"),
        ({"sft.lr_scheduler_type": "linaer"}, "linaer"),
        ({"steps_per_generation": 2, "generation_batch_size": 64}, "generation_batch_size"),
    ],
)
def test_an_error_of_trl_becomes_one_sentence(overrides, word):
    with pytest.raises(UserError, match=f"TRL refuses the recipe: .*{word}") as refused:
        check_configs(load_recipe("tiny-r1", **overrides))
    assert "\n" not in str(refused.value)
