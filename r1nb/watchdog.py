"""Figures turned into advice: pure functions from a run's history to sentences.

Thresholds were set on healthy runs of tiny-cpu; data/make_faults.py plants faults against them.
"""

import math
from dataclasses import dataclass
from statistics import fmean

from r1nb.evaluation import wilson
from r1nb.rewards import best_total

WINDOW = 10  # steps that one opinion is formed on
PATIENCE = 15  # steps that a reward may stay silent


@dataclass(frozen=True)
class Advice:
    """One sentence about a run; `kind` names the fault, and a run hears of each once."""

    step: int
    kind: str
    sentence: str


def advise(history: list[dict], recipe, log=None, checkpoints=()) -> list[Advice]:
    """What the history so far calls for, at its last step; [] if all is well.

    `log` is the completion log of the last WINDOW steps (`Run.completions`), `checkpoints` their steps.
    What is only the consequence of another fault is not said beside it.
    """
    steps = [line for line in history if "reward" in line]
    if not steps:
        return []
    found = [*_broken(steps, checkpoints)] or [*_exploded(steps, checkpoints), *_far_from_base(steps, recipe)]
    found = found or [*_fallen(steps, recipe, checkpoints)]
    if not found and len(steps) >= WINDOW:
        found += [*_cut_off(steps, recipe)] or [*_no_variance(steps, recipe), *_silent(steps, recipe)]
        found += [*_still(steps), *_collapsed(steps, recipe)]
        found += [*_always(steps, recipe), *_hacked(history, steps, recipe, log)]
        found += _repeated(log, recipe)
    return [Advice(steps[-1]["step"], kind, sentence) for kind, sentence in found]


def _mean(steps: list[dict], key: str, last: int = WINDOW) -> float:
    return fmean(line.get(key) or 0.0 for line in steps[-last:])


def _back(checkpoints, step: int) -> str:
    earlier = [c for c in checkpoints if c < step]
    return f"go back to checkpoint-{max(earlier)}" if earlier else "start again"


def _broken(steps, checkpoints):
    for key in ("loss", "grad_norm", "adapter/norm"):
        value = steps[-1].get(key)
        if value is not None and not math.isfinite(value):
            yield (
                "not_finite",
                f"{key} is {value}: training is stopped, since the weights are spoilt from here on; "
                f"{_back(checkpoints, steps[-1]['step'])} with a lower learning_rate, or with float32 or "
                "bfloat16 instead of float16.",
            )
            return


def _exploded(steps, checkpoints):
    start, now = _mean(steps[:3], "entropy", 3), _mean(steps, "entropy", 3)
    if len(steps) > 5 and now > 3 * start and now > start + 1:
        yield (
            "exploded",
            f"Entropy has risen to {now:.1f} from {start:.1f}: the policy writes at random, which comes of "
            f"steps that are too large; {_back(checkpoints, steps[-3]['step'])} with learning_rate / 10.",
        )


def _far_from_base(steps, recipe):
    if recipe.grpo.get("beta") and (kl := _mean(steps, "kl", 3)) > 5:
        yield (
            "far_from_base",
            f"KL to the base has run away to {kl:.1f}: raise beta or lower learning_rate.",
        )


def _fallen(steps, recipe, checkpoints):
    half = WINDOW // 2
    means = {end: _mean(steps[:end], "reward", half) for end in range(len(steps), half - 1, -half)}
    if not means:
        return
    at, now = max(means, key=means.get), means[len(steps)]
    if means[at] > 0.25 * best_total(recipe.rewards) and now < 0.4 * means[at]:
        best = steps[at - 1]["step"]
        yield (
            "fallen",
            f"The reward has fallen to {now:.2f} from {means[at]:.2f} at step {best}: "
            f"{_back(checkpoints, best + 1)} with a lower learning_rate.",
        )


def _cut_off(steps, recipe):
    share, limit = _mean(steps, "completions/clipped_ratio"), recipe.grpo["max_completion_length"]
    first, now = (_mean(part, "completions/mean_length", 5) for part in (steps[:5], steps))
    lately = _mean(steps, "completions/clipped_ratio", 5)
    if share > 0.99:
        yield (
            "no_end",
            f"Not one completion of the last {WINDOW} steps has ended by itself: does the chat template "
            f"close a reply with a token that is in eos_token_id? If so, {limit} tokens are far too few.",
        )
    elif lately > 0.25 and now > 2 * first:
        yield (
            "too_long",
            f"Completions have grown to {now:.0f} tokens from {first:.0f}, and {lately:.0%} are cut off at "
            f"{limit}: does a reward pay for length? Add overlong_reward_func, or lower learning_rate.",
        )
    elif share > 0.5:
        yield (
            "cut_off",
            f"{share:.0%} of completions are cut off at {limit} tokens and lose their answer: raise "
            f"max_completion_length to {2 * limit} or more.",
        )


def _no_variance(steps, recipe):
    share, reward = _mean(steps, "frac_reward_zero_std"), _mean(steps, "reward")
    best = best_total(recipe.rewards)
    if share < 0.9:
        return
    if not any(line["reward"] for line in steps):
        yield (
            "nothing_earned",
            f"No completion of {len(steps)} steps has earned anything: print a prompt and some completions. "
            "Is the chat template the model's own? If it is, take easier problems, or a short SFT start.",
        )
        return
    kind, remedy = "too_hard", "take easier problems, or a short SFT start"
    if reward > 0.9 * best:
        kind, remedy = "too_easy", "take harder problems"
    yield (
        kind,
        f"In {share:.0%} of the groups all completions earn the same (mean reward {reward:.2f} of "
        f"{best:g}), so there is nothing to choose from: {remedy}.",
    )


def _silent(steps, recipe):
    if len(steps) < PATIENCE or not any(line["reward"] for line in steps):
        return
    for name in recipe.rewards:
        if recipe.scorer(name).high > 0 and not any(line.get(f"rewards/{name}/mean") for line in steps):
            yield (
                f"silent_{name}",
                f"{name} has not fired once in {len(steps)} steps: see with check_rewards whether it fires "
                "on an ideal completion, and read some completions.",
            )


def _always(steps, recipe):
    for name in recipe.rewards:
        scorer, paid = recipe.scorer(name), [line.get(f"rewards/{name}/mean") for line in steps[:WINDOW]]
        if scorer.high <= 0 or scorer.needs or any((mean or 0) < 0.999 * scorer.high for mean in paid):
            continue
        if scorer.score("") == scorer.high:  # so it is not that the policy is perfect at it
            yield (
                f"always_{name}",
                f"{name} has paid its maximum to every completion since the start, and pays it to an empty "
                "one: it teaches nothing. Mend it, or take it out.",
            )


def _still(steps):
    norms = {line.get("adapter/norm") for line in steps[-WINDOW:]}
    if len(norms) == 1 and None not in norms and _mean(steps, "frac_reward_zero_std") < 0.9:
        yield (
            "still",
            f"The adapter's weights have not moved in {WINDOW} steps although rewards differ: is it attached "
            "to the model that is trained, and learning_rate above 0?",
        )


def _collapsed(steps, recipe):
    start, now = _mean(steps[:3], "entropy", 3), _mean(steps, "entropy")
    if now < 0.02 * start and _mean(steps, "reward") < 0.8 * best_total(recipe.rewards):
        yield (
            "collapsed",
            f"Entropy has collapsed to {now:.4f} from {start:.2f}: the completions of a group are all alike "
            "before they are good. Lower learning_rate, or raise epsilon_high.",
        )


def _hacked(history, steps, recipe, log):
    looks = {line["step"]: line for line in history if line.get("held_out/strict") is not None}
    if len(looks) < 2:
        return
    best, last = max(looks, key=lambda step: looks[step]["held_out/strict"]), max(looks)
    (low, _), (_, high) = (
        wilson(round(look["held_out/strict"] * look["held_out/n"]), int(look["held_out/n"]))
        for look in (looks[best], looks[last])
    )
    before = [line for line in steps if line["step"] <= best] or steps[:3]
    if high < low and _mean(steps, "reward", 3) > _mean(before, "reward", 3):
        yield (
            "hacked",
            f"The reward rises while held-out strict accuracy has fallen to "
            f"{looks[last]['held_out/strict']:.0%} from {looks[best]['held_out/strict']:.0%} at step {best}: "
            f"a reward is paid for something else than right answers{_example(log, recipe)}.",
        )


def _example(log, recipe) -> str:
    """The wrong completion of highest advantage, if the log can tell."""
    judge = recipe.judge_of("answer")
    if log is None or "answer" not in log or judge.needs:
        return ""
    for _, line in log.sort_values("advantage", ascending=False).iterrows():
        if (judge.score(line["completion"], line["answer"]) or 0.0) < judge.high:
            text, gold = line["completion"][:300], line["answer"]
            return f", as for this completion (advantage {line['advantage']:+.1f}, gold {gold}): {text!r}"
    return ""


def _repeated(log, recipe):
    if log is None:
        return
    groups, prompts = len(log) / recipe.group_size, log["prompt"].nunique()
    if groups >= WINDOW / 2 and prompts < groups / 4:
        yield (
            "repeated",
            f"The last {groups:.0f} groups asked only {prompts} different question{'s' * (prompts > 1)}: is "
            "the dataset full of duplicates? The policy will learn them by heart.",
        )
