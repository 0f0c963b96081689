"""Fixtures that several test files share."""

import json
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


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Return a run with evaluation and saved adapter, as notebook 03 leaves it."""
    import torch

    from r1nb.paths import write_json
    from r1nb.policy.loading import attach_lora, load_policy
    from r1nb.recipes.loading import load_recipe
    from r1nb.tasks.rows import load_splits
    from r1nb.training.resume import begin_run

    folder = tmp_path_factory.mktemp("saved")
    recipe = load_recipe("tiny-cpu", runs_dir=str(folder), r=8)
    policy = load_policy(recipe)
    run = begin_run(recipe, load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0])
    rate = {"strict": 0.5, "lenient": 0.5, "format": 0.9, "n": 10, "cut": 0.0, "tokens": 9.0, "rewards": {}}
    rate |= {f"{key}_interval": [0.2, 0.8] for key in ("strict", "lenient", "format")}
    unjudged = rate | dict.fromkeys(("strict", "strict_interval", "lenient", "lenient_interval"))
    evaluation = {"test": {"before": rate, "prefilled": unjudged, "after": rate}}
    (run.folder / "evaluation.json").write_text(json.dumps(evaluation))
    for moment, right in {"before": range(5), "after": range(3, 8)}.items():
        answer = {"answer": "1", "completion": "", "ids": [], "cut": False, "format": True, "rewards": {}}
        graded = [
            answer | {"question": f"{n}?", "strict": n in right, "lenient": n in right, "kind": kind}
            for n, kind in enumerate(["sums"] * 5 + ["products"] * 5)
        ]
        write_json(run.folder / "evaluation" / f"{moment}-test.json", graded)
    attach_lora(policy, recipe)
    generator = torch.Generator().manual_seed(0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    policy.save_adapter(run.adapter, run)
    return run
