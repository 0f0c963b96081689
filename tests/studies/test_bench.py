"""The GPU bench, as far as a CPU can take it: its parts run for real on a small model."""

import subprocess
import sys

import pytest

from r1nb.machine.configs import grpo_config
from r1nb.recipes.recipe import load_recipe
from r1nb.studies.bench import ENGINES, PeakMemory, longest, measure, random_llama

SHAPE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 1000,
}  # fmt: skip


def test_a_real_run_is_measured_beside_its_plan(tmp_path):
    model = random_llama(tmp_path / "model", SHAPE)
    recipe = load_recipe(
        "tiny-cpu", model_name=str(model), max_steps=3, per_device_train_batch_size=8, torch_threads=1,
        max_completion_length=16, save_strategy="no", runs_dir=str(tmp_path / "runs"),
    )  # fmt: skip
    figures = measure(recipe)
    assert set(figures) == {"seconds a step", "tokens a second", "peak GB", "planned GB"}
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_each_competitor_is_a_recipe_that_can_be(engine):
    recipe = load_recipe("llama31-8b-seed", **ENGINES[engine], max_steps=10)
    assert grpo_config(recipe, "unused").use_vllm == ("vllm" in engine)
    assert (recipe.model.engine == "transformers") == (engine == "trl")


@pytest.mark.parametrize(("limit", "expected"), [(100, 0), (128, 128), (300, 256), (10_000, 2048)])
def test_the_longest_that_fits_is_found_by_doubling(limit, expected):
    assert longest(lambda length: length <= limit, 128) == expected


def test_the_peak_is_what_was_held_meanwhile():
    import numpy

    with PeakMemory() as before:
        pass
    with PeakMemory() as memory:
        held = numpy.ones(50_000_000)
        held += 1
        memory._stopped.wait(0.1)
    assert memory.peak_gb > before.peak_gb + 0.3


def test_without_a_gpu_it_says_so_in_one_sentence():
    command = [sys.executable, "-m", "r1nb.studies.bench", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "r1nb: `r1nb.studies.bench gpu` measures a CUDA GPU, and this machine has none; see `make bench`."
    )
