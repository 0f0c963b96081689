"""Fixtures that several test files share."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "data"))  # the scripts that made the bundled files

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # no test needs a network


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.delenv("R1NB_SET", raising=False)


@pytest.fixture
def tiny_recipe(tmp_path):
    """Return the default recipe, shortened, with its runs in a folder of the test.

    It has the five equal rewards: none of its few completions is right, so correctness alone teaches nothing.
    """
    from r1nb.recipes.loading import load_recipe

    return load_recipe(
        "tiny-cpu",
        rewards=load_recipe("tiny-five-rewards").rewards,
        runs_dir=str(tmp_path / "runs"),
        max_steps=2,
        per_device_train_batch_size=16,
        eval_every=1,
        validation_problems=6,
        test_problems=6,
        torch_threads=1,
    )


@pytest.fixture(scope="session")
def gym():
    """Return reasoning_gym; skip the test if it is not installed (it needs a C compiler)."""
    return pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="session")
def gsm8k_dir():
    folder = os.environ.get("R1NB_GSM8K_DIR")
    if not folder:
        pytest.skip("Set R1NB_GSM8K_DIR to a folder with GSM8K's train.jsonl and test.jsonl")
    return Path(folder)
