"""Measure once how hard each training problem is for the base policy, and keep only the useful problems.

A group of completions that are all right or all wrong has no variance, so GRPO learns nothing from it.
"""

import contextlib
import hashlib
import json

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import sample_groups
from r1nb.paths import DATA, runs_folder, write_json
from r1nb.policy.cards import prompt_format
from r1nb.recipes.settings import Sampling
from r1nb.rewards.grading import Judge
from r1nb.tasks.rows import normalize

SAMPLES = 8
CHUNK = 500  # problems


def pass_rates(policy, rows, recipe) -> list[float]:
    """For each row, the share (0 to 1) of 8 completions of the base policy whose answer is right.

    Completions are sampled as in training, but with the reply prefilled: the policy soon learns the format,
    and then only the answer counts. Earlier measurements are read from the folder of runs; those of the tiny
    policy are shipped with it. Another prompt format is another measurement.
    """
    base, options = recipe.model.model_name, recipe.grpo.get("chat_template_kwargs")
    name = f"pass-rates-{policy.fingerprint()}-{recipe.data.layout}"
    style = hashlib.sha256(prompt_format(policy.tokenizer, recipe.layout).encode()).hexdigest()[:8]
    ours = runs_folder(recipe.output.runs_dir) / f"{name}-{style}.json"
    shipped = [] if options or base != "tiny-policy" else [DATA / "tiny-policy" / f"{name}.json"]
    known: dict[str, float] = {}
    for path in (*shipped, ours):
        with contextlib.suppress(OSError, ValueError):  # missing or damaged: measured again
            known |= json.loads(path.read_text(encoding="utf-8"))
    judge, sampling = recipe.judge(rows.column_names), recipe.sampling
    keys = [_key(row, judge, sampling) for row in rows]
    new = [i for i, key in enumerate(keys) if key not in known]
    if new:
        print(f"Measuring the base policy's pass rate on {len(new)} problems, once: {SAMPLES} samples each.")
    for start in range(0, len(new), CHUNK):  # saved after each: a large model takes hours
        some = new[start : start + CHUNK]
        title = f"pass rates, from problem {start + 1}"
        groups = sample_groups(
            policy, rows.select(some), judge, sampling, recipe.evaluation.eval_batch_size, SAMPLES,
            prefill=recipe.layout.prefill, title=title, adapter=False,
        )  # fmt: skip
        if any(g.right is None for group in groups for g in group):
            raise UserError("The judge did not answer, so there is no pass rate: is judge_url reachable?")
        known |= {
            keys[i]: sum(g.right for g in group) / SAMPLES for i, group in zip(some, groups, strict=True)
        }
        ours.parent.mkdir(parents=True, exist_ok=True)
        write_json(ours, known)
    return [known[key] for key in keys]


def keep_by_difficulty(policy, rows, recipe):
    """The rows whose pass rate is in the recipe's [min_pass_rate, max_pass_rate]; all if neither is set.

    Prints how many are kept. Raises UserError if these are fewer than a batch needs.
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
    if len(kept) < (needed := recipe.problems_per_generation):
        few = f"{len(kept)} training problems have a pass rate of {low} to {high}; TRL takes {needed} at once"
        raise UserError(f"{few}: lower min_pass_rate or raise max_pass_rate.")
    return rows.select(kept)


def _key(row: dict, judge: Judge, sampling: Sampling) -> str:
    """A hash of a problem and of everything else, except the policy, that its pass rate depends on."""
    decides = (normalize(row["question"]), row["answer"], row.get("nums"), row.get("target"),
               judge.answer.__name__, sampling.max_tokens, sampling.temperature, sampling.top_p)  # fmt: skip
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:12]
