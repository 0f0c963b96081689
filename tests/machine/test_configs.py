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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eval_strategy": "steps"}, "set eval_every; leave it out."),
        ({"eval_strategy": "epoch"}, "eval_strategy = 'epoch'"),
        ({"eval_on_start": True}, "eval_on_start = True"),
        ({"do_eval": True}, "do_eval = True"),
        ({"load_best_model_at_end": True}, "save_steps keeps earlier checkpoints"),
        ({"push_to_hub": True}, "uploads nothing"),
        ({"log_completions_hub_repo": "me/mine"}, "uploads nothing"),
        ({"remove_unused_columns": True}, "hide the gold"),
        ({"ignore_data_skip": True}, "same problems again"),
        ({"resume_from_checkpoint": "checkpoint-3"}, "resumes an unfinished run by itself"),
        ({"top_k": -1}, "grpo.top_k = -1: must be at least 0; 0 means all tokens."),
        ({"top_p": 0.0}, "must be greater than 0"),
        ({"top_p": 1.5}, "must be at most 1"),
        ({"min_p": -0.1}, "must be at least 0"),
        ({"repetition_penalty": 0.0}, "must be greater than 0"),
        ({"temperature": float("inf")}, "must be a finite number"),
        ({"max_grad_norm": float("nan")}, "must be a finite number"),
        ({"adam_epsilon": -1.0}, "must be at least 0"),
        ({"steps_per_generation": 0}, "must be at least 1"),
        ({"generation_batch_size": 0}, "must be at least 1"),
        ({"pad_to_multiple_of": 0}, "must be at least 1"),
        ({"seed": 2**32}, "must be less than 4294967296"),
        ({"save_strategy": "best"}, "must be 'no', 'steps' or 'epoch'"),
        ({"log_level": "loud"}, "must be 'passive'"),
        ({"deepspeed": "zero.json"}, "needs several processes, which accelerate launch"),
        ({"fsdp": "full_shard"}, "needs several processes"),
        ({"parallelism_config": {"tp": 2}}, "needs several processes"),
        ({"dataloader_num_workers": -1}, "must be at least 0"),
        ({"dataloader_persistent_workers": True}, "needs num_workers > 0"),
        ({"dataloader_multiprocessing_context": "spawn"}, "num_workers > 0"),
        ({"accelerator_config": "nowhere.json"}, "nowhere.json"),
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches"),
        ({"optim": "lomo"}, "lomo"),
        ({"optim_args": "fast"}, "TRL refuses the recipe"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "foo"),
        ({"generation_kwargs": {"foo": 1}}, "foo is set by TRL, or unknown to generate"),
        ({"generation_kwargs": {"num_return_sequences": 2}}, "num_return_sequences is set by TRL"),
        ({"generation_kwargs": {"top_k": -1}}, "top_k is a key of the section grpo"),
        ({"generation_kwargs": "x"}, "key: value lines"),
        ({"chat_template_kwargs": "x"}, "key: value lines"),
        ({"gradient_checkpointing_kwargs": "x", "gradient_checkpointing": True}, "key: value lines"),
        ({"train_sampling_strategy": "foo"}, "must be 'random', 'sequential'"),
        ({"sft": {"max_steps": 1, "loss_type": "foo"}}, "sft.loss_type = 'foo': must be 'nll', 'dft' or"),
        ({"debug": False}, "grpo.debug = False: must be a valid string"),
        ({"log_level_replica": "loud"}, "grpo.log_level_replica = 'loud': must be 'passive'"),
        ({"per_device_train_batch_size": 4, "num_generations": 8}, "; make the batch 8."),
        ({"cache_implementation": "foo"}, "cache_implementation"),
        ({"use_liger_kernel": True}, "pip install liger-kernel"),
        ({"torch_compile_mode": "foo"}, "foo"),
        ({"sync_ref_model": True}, "set beta above 0"),
        ({"multi_objective_aggregation": "foo"}, "must be 'sum_then_normalize' or"),
        ({"torch_compile": True, "torch_compile_backend": "foo"}, "'FOO'"),
    ],
)
def test_what_would_fail_after_minutes_is_refused_before_a_model_is_loaded(settings, words):
    with pytest.raises(UserError) as caught:
        check_configs(load_recipe("tiny-cpu", **settings))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_change_nothing_are_taken():
    nothing = dict.fromkeys(("eval_strategy", "push_to_hub", "remove_unused_columns", "do_eval"), False)
    more = {"save_strategy": False, "min_p": None, "epsilon_high": None, "resume_from_checkpoint": True}
    recipe = load_recipe("tiny-cpu", **nothing, **more, generation_kwargs={"typical_p": 0.9})
    check_configs(recipe)
    assert (recipe.grpo["eval_strategy"], recipe.grpo["save_strategy"]) == (
        "no",
        "no",
    )  # YAML reads no as false
