"""An out-of-memory error is recognised and becomes one sentence, and nothing is lost."""

import weakref

import pytest
import torch

from r1nb.errors import UserError
from r1nb.machine.out_of_memory import is_out_of_memory, out_of_memory_in_words, remedy_for
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.tasks.rows import load_splits
from r1nb.training.callbacks import Recorder
from r1nb.training.resume import new_run
from r1nb.training.stages import grpo_trainer


def allocate():
    return torch.empty(1 << 58, dtype=torch.uint8)  # more than any machine has


def in_words(recipe, run=None):
    return out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo), run)


def chained(cause):
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError("Engine core initialization failed.") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (ValueError("No available memory for the cache blocks. Try increasing it."), True),
        (ValueError("Free memory on device (3/15 GiB) is less than desired GPU memory utilization"), True),
        (chained(torch.OutOfMemoryError("CUDA out of memory.")), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (KeyError("memory"), False),
    ],
)
def test_out_of_memory_errors_are_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_an_out_of_memory_error_of_pytorch_on_a_cpu_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        allocate()
    assert is_out_of_memory(raised.value)


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), in_words(load_recipe()):
        1 / 0  # noqa: B018


def test_in_nested_blocks_the_sentence_is_written_once():
    recipe = load_recipe()
    with pytest.raises(UserError) as raised, in_words(recipe), in_words(recipe):
        allocate()
    assert str(raised.value).count("Out of memory") == 1


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("llama31-8b-80gb", "take recipe 'llama31-8b-40gb'"),
        ("llama31-8b-16gb", "take recipe 'llama32-1b-16gb'"),
        ("llama32-1b-16gb", "lower max_completion_length"),
        ("tiny-cpu", "lower max_completion_length, or lower per_device_train_batch_size"),
    ],
)
def test_the_sentence_names_the_next_smaller_recipe_or_a_setting_to_lower(name, remedy):
    with pytest.raises(UserError, match=remedy), in_words(load_recipe(name)):
        allocate()


def test_the_memory_of_the_block_is_freed():
    held = []

    def step():
        activations = torch.ones(1000)
        held.append(weakref.ref(activations))
        allocate()

    with pytest.raises(UserError), in_words(load_recipe()):
        step()
    assert held[0]() is None


def test_after_out_of_memory_the_run_is_intact_and_the_policy_still_works(tmp_path):
    recipe = load_recipe(
        "tiny-cpu", runs_dir=str(tmp_path / "runs"), max_steps=5, save_steps=1, torch_threads=1,
        per_device_train_batch_size=16,
    )  # fmt: skip
    train, _, _ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    run = new_run(recipe)
    trainer = grpo_trainer(policy, train, recipe, run.folder, [Recorder(run)])
    compute_loss = trainer.compute_loss

    def too_large_at_step_3(*args, **kwargs):
        if trainer.state.global_step == 2:
            allocate()
        return compute_loss(*args, **kwargs)

    trainer.compute_loss = too_large_at_step_3
    with pytest.raises(UserError) as raised, in_words(recipe, run):
        trainer.train()
    sentence = str(raised.value)
    assert sentence.startswith("Out of memory (")
    assert f"The run folder {run.label} is intact, with checkpoint-2." in sentence
    assert "\n" not in sentence
    assert run.series("reward")[0] == [1, 2]
    assert run.checkpoints()[-1] == 2
    assert policy.generate([train[0]["prompt"]], Sampling(4))
    policy.save_adapter(run.adapter)  # the adapter as trained until then
