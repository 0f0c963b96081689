"""How hard each training problem is to the base policy, measured once; and only the useful ones kept.

A group of completions that are all right or all wrong has no variance, and teaches GRPO nothing.
"""

import hashlib
import json

from r1nb.data import normalize
from r1nb.errors import UserError
from r1nb.evaluation import sample_groups
from r1nb.paths import DATA, runs_folder
from r1nb.prompts import LAYOUTS
from r1nb.runs import write_json

SAMPLES = 8


def pass_rates(policy, rows, recipe) -> list[float]:
    """For each row, the share of 8 completions of the base policy that are right (lenient), 0 to 1.

    Sampled as training samples, but with the reasoning block opened: the format is soon learnt, and then
    this is what decides. What was measured before is read: from the folder of runs, or what ships with
    the tiny policy.
    """
    name = f"pass-rates-{policy.fingerprint()}-{recipe.data.layout}.json"
    ours, shipped = runs_folder(recipe.output.runs_dir) / name, DATA / "tiny-policy" / name
    path = ours if ours.is_file() else shipped
    known = json.loads(path.read_text()) if path.is_file() else {}
    keys = [_key(row, recipe) for row in rows]
    if new := [i for i, key in enumerate(keys) if key not in known]:
        print(f"Measuring the base policy's pass rate on {len(new)} problems, once: {SAMPLES} samples each.")
        prefill = LAYOUTS[recipe.data.layout].prefill
        groups = sample_groups(policy, rows.select(new), recipe, SAMPLES, prefill, "pass rates")
        for i, group in zip(new, groups, strict=True):
            known[keys[i]] = sum(bool(g.lenient) for g in group) / SAMPLES
        ours.parent.mkdir(parents=True, exist_ok=True)
        write_json(ours, known)
    return [known[key] for key in keys]


def keep_by_difficulty(policy, rows, recipe):
    """The rows whose pass rate lies in the recipe's [min_pass_rate, max_pass_rate]; all without either.

    Says how many are kept; refuses fewer than a batch needs.
    """
    low, high = recipe.data.min_pass_rate, recipe.data.max_pass_rate
    if low is None and high is None:
        return rows
    low, high = low or 0.0, 1.0 if high is None else high
    rates = pass_rates(policy, rows, recipe)
    kept = [i for i, rate in enumerate(rates) if low <= rate <= high]
    easy, hard = sum(rate > high for rate in rates), sum(rate < low for rate in rates)
    print(
        f"Kept {len(kept)} of {len(rows)} training problems, which the base policy solves in {low:.0%} to "
        f"{high:.0%} of {SAMPLES} samples; {easy} are easier, {hard} harder."
    )
    if len(kept) < (needed := recipe.batch_size // recipe.group_size):
        raise UserError(
            f"{len(kept)} training problems have a pass rate of {low} to {high}, and a step takes {needed}: "
            "lower min_pass_rate or raise max_pass_rate."
        )
    return rows.select(kept)


def _key(row: dict, recipe) -> str:
    """A problem and what decides its rate, beside the policy."""
    decides = (normalize(row["question"]), row["answer"], recipe.grpo["max_completion_length"],
               recipe.grpo.get("temperature", 1.0), recipe.grpo.get("top_p", 1.0))  # fmt: skip
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:12]
