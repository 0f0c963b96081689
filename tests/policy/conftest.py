"""A saved adapter that several test files use."""

import json

import pytest
import torch


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Return a run with evaluation and saved adapter, as notebook 03 leaves it."""
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
    attach_lora(policy, recipe)
    generator = torch.Generator().manual_seed(0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    policy.save_adapter(run.adapter, run)
    return run
