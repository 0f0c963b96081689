"""Alarms: pure functions from a run's history to sentences that say what goes wrong and what to change.

Thresholds were set on healthy runs of tiny-cpu; data/make_faults.py plants faults against them.
"""

import math
from dataclasses import dataclass
from statistics import fmean, median

from r1nb.rewards.grading import Judge
from r1nb.text.statistics import wilson

GROUPS = 80  # that an alarm looks at: ten steps of tiny-cpu, more lines where steps are small


@dataclass(frozen=True)
class Alarm:
    """One sentence about a run; `kind` names what is wrong, and a run hears of each kind once."""

    step: int
    kind: str
    sentence: str


def window(args, groups: int = GROUPS) -> int:
    """Lines of the history that hold so many groups; at least 3. `args` is the run's GRPOConfig."""
    completions = args.per_device_train_batch_size * args.gradient_accumulation_steps
    a_line = completions // args.num_generations * max(1, int(args.logging_steps))
    return max(3, math.ceil(groups / max(1, a_line)))


def find_alarms(history: list[dict], judge: Judge, args, log=None, checkpoints=()) -> list[Alarm]:
    """What the history so far calls for, at its last step; [] if all is well.

    `judge` holds the rewards, `args` is the GRPOConfig, `log` the completion log of the steps of the last
    window (`Run.completions`), `checkpoints` their steps. What is only the consequence of another alarm is
    not said beside it.
    """
    lines = [line for line in history if "loss" in line]
    steps = [line for line in lines if line.get("reward") is not None]
    n = window(args)
    found = [*_broken(lines, checkpoints), *_unjudged(lines)]
    if steps and not found:
        found = [*_exploded(steps, args, checkpoints)] or [*_fallen(steps, judge, args, checkpoints)]
    if len(steps) >= n and not found:
        found = [*_cut_off(steps, n, args)] or [*_no_variance(steps, n, judge, args)]
        found = found or [*_silent(steps, n, judge)]
        found += [*_far_from_base(steps, n, args), *_still(steps, n), *_collapsed(steps, n, judge, args)]
        found += [*_always(steps, n, judge), *_hacked(history, steps, n, judge, log)]
        found += _repeated(log, args.num_generations)
    return [Alarm(lines[-1]["step"], kind, sentence) for kind, sentence in found]


def _mean(steps: list[dict], key: str, last: int) -> float:
    """Over those of the last lines that have the figure."""
    return fmean([line[key] for line in steps[-last:] if line.get(key) is not None] or [0.0])


def _ago(steps: list[dict], n: int) -> int:
    """The steps that the last n lines stand for."""
    return steps[-1]["step"] - (steps[-n - 1]["step"] if len(steps) > n else 0)


def _back(checkpoints, step: int) -> str:
    earlier = [c for c in checkpoints if c < step]
    return f"go back to checkpoint-{max(earlier)}" if earlier else "start again"


def _broken(lines, checkpoints):
    """The adapter itself, or loss or gradient three times running: fp16's scaler skips single overflows."""
    for key, times in (("adapter/norm", 1), ("grad_norm", 3), ("loss", 3)):
        last = [line.get(key) for line in lines[-times:]]
        if len(last) == times and not any(value is None or math.isfinite(value) for value in last):
            yield (
                "not_finite",
                f"{key} is {last[-1]}: training is stopped, since the weights are spoilt from here on; "
                f"{_back(checkpoints, lines[-1]['step'])} with a lower learning_rate, or with float32 or "
                "bfloat16 instead of float16.",
            )
            return


def _unjudged(lines):
    last = lines[-3:]
    if len(last) == 3 and all("reward" in line and line["reward"] is None for line in last):
        yield (
            "unjudged",
            "No completion of the last 3 steps could be judged: is judge_url reachable, or does a "
            "reward give None to all?",
        )


def _exploded(steps, args, checkpoints):
    few = window(args, GROUPS // 4)
    start, now = _mean(steps[:few], "entropy", few), _mean(steps, "entropy", few)
    if len(steps) > few and now > 3 * start and now > start + 1:
        yield (
            "exploded",
            f"Entropy has risen to {now:.1f} from {start:.1f}: the policy writes at random, which comes of "
            f"steps that are too large; {_back(checkpoints, steps[-few]['step'])} with learning_rate / 10.",
        )


def _far_from_base(steps, n, args):
    kl = median([line.get("kl") or 0.0 for line in steps[-max(5, n // 2) :]])
    if args.beta and kl > 5:
        yield (
            "far_from_base",
            f"KL to the reference model has run away to {kl:.1f}: raise beta or lower learning_rate.",
        )


def _fallen(steps, judge, args, checkpoints):
    half = window(args, GROUPS // 2)
    means = {end: _mean(steps[:end], "reward", half) for end in range(len(steps), half - 1, -half)}
    if not means:
        return
    at, now = max(means, key=means.get), means[len(steps)]
    if means[at] > 0.25 * judge.best_total and now < 0.4 * means[at]:
        best = steps[at - 1]["step"]
        yield (
            "fallen",
            f"The reward has fallen to {now:.2f} from {means[at]:.2f} at step {best}: "
            f"{_back(checkpoints, best + 1)} with a lower learning_rate.",
        )


def _cut_off(steps, n, args):
    half, limit = max(1, n // 2), args.max_completion_length
    share, lately = (_mean(steps, "completions/clipped_ratio", count) for count in (n, half))
    first, now = (_mean(part, "completions/mean_length", half) for part in (steps[:half], steps))
    if share > 0.99:
        yield (
            "no_end",
            f"Not one completion of the last {_ago(steps, n)} steps has ended by itself: does the chat "
            f"template close a reply with a token of eos_token_id? If so, {limit} tokens are far too few.",
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


def _no_variance(steps, n, judge, args):
    share, reward = _mean(steps, "frac_reward_zero_std", n), _mean(steps, "reward", n)
    if share < 0.9 or args.scale_rewards == "batch":  # where TRL's figure is of the batch
        return
    if not any(line["reward"] for line in steps):
        yield (
            "nothing_earned",
            f"No completion of {_ago(steps, len(steps))} steps has earned anything: print a prompt and some "
            "completions. Is the chat template the model's own? If it is, take easier problems, or a short "
            "SFT start.",
        )
        return
    best = judge.best_total
    kind, remedy = "no_variance", "take problems that it solves now and then"
    if reward < 0.5 * best:
        kind, remedy = "too_hard", "take easier problems, or a short SFT start"
    elif reward > 0.9 * best:
        kind, remedy = "too_easy", "take harder problems"
    yield (
        kind,
        f"In {share:.0%} of the groups all completions earn the same (mean reward {reward:.2f} of "
        f"{best:g}), so there is nothing to choose from: {remedy}.",
    )


def _silent(steps, n, judge):
    if len(steps) < 1.5 * n or not any(line["reward"] for line in steps):
        return
    for name, reward in judge.rewards.items():
        if reward.high > 0 and not any(line.get(f"rewards/{name}/mean") for line in steps):
            yield (
                f"silent_{name}",
                f"{name} has not fired once in {_ago(steps, len(steps))} steps: see with check_rewards "
                "whether it fires on an ideal completion, and read some completions.",
            )


def _always(steps, n, judge):
    for name, reward in judge.rewards.items():
        paid = [line.get(f"rewards/{name}/mean") for line in steps[:n]]
        if reward.high <= 0 or reward.needs or any((mean or 0) < 0.999 * reward.high for mean in paid):
            continue
        if reward.score("") == reward.high:  # so it is not that the policy is perfect at it
            yield (
                f"always_{name}",
                f"{name} has paid its maximum to every completion since the start, and pays it to an empty "
                "one: it teaches nothing. Mend it, or take it out.",
            )


def _still(steps, n):
    norms = {line.get("adapter/norm") for line in steps[-n:]}
    if len(norms) == 1 and None not in norms and _mean(steps, "frac_reward_zero_std", n) < 0.9:
        yield (
            "still",
            f"The adapter's weights have not moved in {_ago(steps, n)} steps although rewards differ: is it "
            "attached to the model that is trained, and learning_rate above 0?",
        )


def _collapsed(steps, n, judge, args):
    few = window(args, GROUPS // 4)
    start, now = _mean(steps[:few], "entropy", few), _mean(steps, "entropy", n)
    if now < 0.02 * start and _mean(steps, "reward", n) < 0.8 * judge.best_total:
        yield (
            "collapsed",
            f"Entropy has collapsed to {now:.4f} from {start:.2f}: the completions of a group are all alike "
            "before they are good. Lower learning_rate, or raise epsilon_high.",
        )


def _hacked(history, steps, n, judge, log):
    rates = {line["step"]: line for line in history if line.get("validation/strict") is not None}
    if len(rates) < 2:
        return
    best, last = max(rates, key=lambda step: rates[step]["validation/strict"]), max(rates)
    (low, _), (_, high) = (
        wilson(round(line["validation/strict"] * line["validation/n"]), int(line["validation/n"]))
        for line in (rates[best], rates[last])
    )
    few = max(3, n // 4)
    before = [line for line in steps if line["step"] <= best] or steps[:few]
    if high < low and _mean(steps, "reward", few) > _mean(before, "reward", few):
        yield (
            "hacked",
            f"The reward rises while strict accuracy on validation rows has fallen to "
            f"{rates[last]['validation/strict']:.0%} from {rates[best]['validation/strict']:.0%} at step "
            f"{best}: a reward is paid for something else than right answers{_example(log, judge.answer)}.",
        )


def _example(log, judge) -> str:
    """The wrong completion of highest advantage, if the log and the reward that judges answers can tell."""
    if log is None or "answer" not in log or judge.needs:
        return ""
    for _, line in log.sort_values("advantage", ascending=False).iterrows():
        if (judge.score(line["completion"], line["answer"]) or 0.0) < judge.high:
            text, gold = line["completion"][:300], line["answer"]
            return f", as for this completion (advantage {line['advantage']:+.1f}, gold {gold!r}): {text!r}"
    return ""


def _repeated(log, group_size: int):
    if log is None:
        return
    batches = {tuple(zip(part["prompt"], part["completion"], strict=True)) for _, part in log.groupby("step")}
    prompts = [prompt for batch in batches for prompt, _ in batch]  # a batch used again counts once
    groups, different = len(prompts) / group_size, len(set(prompts))
    if groups >= GROUPS / 2 and different < groups / 4:
        yield (
            "repeated",
            f"The last {groups:.0f} groups asked only {different} different question{'s' * (different > 1)}: "
            "is the dataset that small, or full of duplicates? The policy will learn them by heart.",
        )
