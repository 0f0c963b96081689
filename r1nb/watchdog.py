"""Figures turned into advice: pure functions from a run's history to sentences.

Thresholds were set on healthy runs of tiny-cpu, before any fault was planted.
"""

import math
from dataclasses import dataclass
from statistics import fmean

from r1nb.rewards import best_total

WINDOW = 10  # steps that one opinion is formed on
PATIENCE = 20  # steps that a reward may stay silent


@dataclass(frozen=True)
class Advice:
    """One sentence about a run; `kind` names the fault, and a run hears of each once."""

    step: int
    kind: str
    sentence: str


def advise(history: list[dict], recipe) -> list[Advice]:
    """What the history so far calls for, at its last step; [] if all is well."""
    steps = [line for line in history if "reward" in line]
    if not steps:
        return []
    found = [*_broken(steps), *_silent(steps, recipe)]
    if len(steps) >= WINDOW:
        found += [*_cut_off(steps, recipe), *_no_variance(steps, recipe), *_still(steps)]
        found += [*_collapsed(steps, recipe), *_fallen(steps, recipe), *_far_from_base(steps, recipe)]
        found += _hacked(history, steps)
    return [Advice(steps[-1]["step"], kind, sentence) for kind, sentence in found]


def _mean(steps: list[dict], key: str) -> float:
    return fmean(line.get(key) or 0.0 for line in steps[-WINDOW:])


def _broken(steps):
    for key in ("loss", "grad_norm"):
        value = steps[-1].get(key)
        if value is not None and not math.isfinite(value):
            yield (
                "not_finite",
                f"{key} is {value}: training is stopped, since the weights are spoilt from here on. Go back "
                "to the last checkpoint with a lower learning_rate, or with float32 or bf16 instead of fp16.",
            )


def _silent(steps, recipe):
    for name in recipe.rewards if len(steps) >= PATIENCE else ():
        if recipe.scorer(name).high > 0 and not any(line.get(f"rewards/{name}/mean") for line in steps):
            yield (
                f"silent_{name}",
                f"{name} has not fired once in {len(steps)} steps: see with check_rewards whether it fires "
                "on an ideal completion, and read some completions.",
            )


def _cut_off(steps, recipe):
    share, limit = _mean(steps, "completions/clipped_ratio"), recipe.grpo["max_completion_length"]
    if share > 0.99:
        yield (
            "no_end",
            f"Not one completion of the last {WINDOW} steps has ended by itself: does the chat template "
            "close a reply with a token that is in eos_token_id?",
        )
    elif share > 0.5:
        yield (
            "cut_off",
            f"{share:.0%} of completions are cut off at {limit} tokens and lose their answer: raise "
            f"max_completion_length to {2 * limit}.",
        )


def _no_variance(steps, recipe):
    share, reward = _mean(steps, "frac_reward_zero_std"), _mean(steps, "reward")
    best = best_total(recipe.rewards)
    kind, remedy = "too_hard", "take easier problems, or a short SFT start"
    if reward > 0.9 * best:
        kind, remedy = "too_easy", "take harder problems"
    if share >= 0.9:
        yield (
            kind,
            f"In {share:.0%} of the groups all completions earn the same (mean reward {reward:.2f} of "
            f"{best:g}), so there is nothing to choose from: {remedy}.",
        )


def _still(steps):
    still = all(line.get("grad_norm") == 0 for line in steps[-WINDOW:])
    if still and _mean(steps, "frac_reward_zero_std") < 0.9:
        yield (
            "still",
            f"The gradient has been 0 for {WINDOW} steps although rewards differ: is the adapter attached, "
            "and is it trained?",
        )


def _collapsed(steps, recipe):
    entropy, reward = _mean(steps, "entropy"), _mean(steps, "reward")
    start = fmean(line.get("entropy") or 0.0 for line in steps[:3])
    if entropy < 0.02 * start and reward < 0.8 * best_total(recipe.rewards):
        yield (
            "collapsed",
            f"Entropy has fallen to {entropy:.4f} from {start:.2f}: the completions of a group are all alike "
            "before they are good. Lower learning_rate, or raise epsilon_high.",
        )


def _fallen(steps, recipe):
    means = {end: _mean(steps[:end], "reward") for end in range(len(steps), WINDOW - 1, -WINDOW)}
    at, now = max(means, key=means.get), means[len(steps)]
    if means[at] > 0.25 * best_total(recipe.rewards) and now < 0.5 * means[at]:
        yield (
            "fallen",
            f"The reward has fallen to {now:.2f} from {means[at]:.2f} at step {steps[at - 1]['step']}: go "
            "back to a checkpoint of about then, with a lower learning_rate.",
        )


def _far_from_base(steps, recipe):
    if recipe.grpo.get("beta") and (kl := _mean(steps, "kl")) > 5:
        yield ("far_from_base", f"KL to the base is {kl:.1f}: raise beta or lower learning_rate.")


def _hacked(history, steps):
    looks = [line for line in history if line.get("held_out/strict") is not None]
    rates = {line["step"]: line["held_out/strict"] for line in looks}
    if len(rates) < 2 or len(steps) < 2 * WINDOW:
        return
    best, last = max(rates, key=rates.get), max(rates)
    rising = _mean(steps, "reward") > _mean(steps[:-WINDOW], "reward")
    if rising and rates[last] < rates[best] - 0.2:
        yield (
            "hacked",
            f"The reward rises while held-out strict accuracy has fallen to {rates[last]:.0%} from "
            f"{rates[best]:.0%} at step {best}: read the completions of highest advantage; a reward is paid "
            "for something else than right answers.",
        )
