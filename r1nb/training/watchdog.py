"""Find faults in a run's history, with pure functions, and raise alarms; alarms.yaml has their sentences.

The thresholds were set on healthy runs of tiny-cpu; data/make_faults.py tests them with planted faults.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import yaml

from r1nb.rewards.grading import Judge
from r1nb.text.statistics import wilson
from r1nb.training.canary import ENTROPY, FIGURE, whole_distribution

GROUPS = 80  # groups that an alarm is based on: ten steps of tiny-cpu, more steps if they have fewer groups
SENTENCES = yaml.safe_load(Path(__file__).with_name("alarms.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Alarm:
    """One sentence about a run; `kind` names the fault, and each kind is raised once in a run."""

    step: int
    kind: str
    sentence: str


def window(lines: list[dict], args, groups: int = GROUPS) -> int:
    """The number of lines of a history that cover `groups` groups; at least 3.

    Each line has a reward; `args` is the GRPOConfig. The lines themselves show how many steps each stands
    for: this depends on logging_steps, which may be a fraction of max_steps, on logging_strategy, and on the
    number of steps that use one generation.
    """
    if len(lines) < 2:
        return 3
    steps, served = lines[-1]["step"] - lines[0]["step"], args.steps_per_generation * args.num_iterations
    sampled = steps * args.gradient_accumulation_steps * args.generation_batch_size / served
    return max(3, math.ceil(groups * (len(lines) - 1) * args.num_generations / sampled))


def last_sampled(history: list[dict], args) -> list[int]:
    """The last steps whose logged completions cover GROUPS groups; the log of a step holds one generation."""
    generations = math.ceil(GROUPS * args.num_generations / args.generation_batch_size)
    return [line["step"] for line in history if "reward" in line][-generations:]


def find_alarms(history: list[dict], judge: Judge, args, log=None, checkpoints=()) -> list[Alarm]:
    """The alarms that the history so far calls for, with its last step; [] if there is no fault.

    `judge` holds the rewards, `args` is the GRPOConfig, `log` holds the completions of the steps that
    last_sampled returns (`Run.completions`), and `checkpoints` the steps of the saved checkpoints. A fault
    that only follows from another one raises no alarm of its own.
    """
    lines = [line for line in history if "loss" in line]
    steps = [line for line in lines if line.get("reward") is not None]
    n, half, few = (window(steps, args, groups) for groups in (GROUPS, GROUPS // 2, GROUPS // 4))
    found = [*_broken(lines, checkpoints), *_unjudged(lines)]
    if steps and not found:
        found = [*_exploded(steps, few, checkpoints)] or [*_fallen(steps, half, judge, checkpoints)]
    if len(steps) >= n and not found:
        found = [*_cut_off(steps, n, args)] or [*_no_variance(steps, n, judge, args)]
        found = found or [*_silent(steps, n, judge)]
        found += [*_far_from_base(steps, n, args), *_still(steps, n), *_collapsed(steps, n, few, judge)]
        found += [*_always(steps, n, judge), *_hacked(history, steps, n, judge, log)]
        found += _repeated(log, args.num_generations)
        found += _unlike_sampler(steps, args)
    return [Alarm(lines[-1]["step"], kind, sentence) for kind, sentence in found]


def _alarm(kind: str, name: str = "", **figures) -> tuple[str, str]:
    """(kind, sentence); if the alarm is about one reward, its kind ends with the reward's name."""
    return f"{kind}_{name}" if name else kind, SENTENCES[kind].format(name=name, **figures)


def _mean(steps: list[dict], key: str, last: int) -> float:
    """The mean of `key` over those of the last `last` lines that have it; 0 if none has it."""
    return fmean([line[key] for line in steps[-last:] if line.get(key) is not None] or [0.0])


def _ago(steps: list[dict], n: int) -> int:
    """The number of steps that the last n lines stand for."""
    return steps[-1]["step"] - (steps[-n - 1]["step"] if len(steps) > n else 0)


def _back(checkpoints, step: int) -> str:
    earlier = [c for c in checkpoints if c < step]
    return f"go back to checkpoint-{max(earlier)}" if earlier else "start again"


def _broken(lines, checkpoints):
    """NaN or infinity: in the adapter's norm, or in three losses or gradient norms in a row.

    A single overflow of loss or gradient is harmless: fp16's gradient scaler skips that step.
    """
    for key, times in (("adapter/norm", 1), ("grad_norm", 3), ("loss", 3)):
        last = [line.get(key) for line in lines[-times:]]
        if len(last) == times and not any(value is None or math.isfinite(value) for value in last):
            back = _back(checkpoints, lines[-1]["step"])
            return [_alarm("not_finite", key=key, value=last[-1], back=back)]
    return []


def _unjudged(lines):
    sampled = [line for line in lines if "reward" in line]  # a step that uses a batch again has none
    if len(sampled) >= 3 and all(line["reward"] is None for line in sampled[-3:]):
        yield _alarm("unjudged", steps=_ago(sampled, 3))


def _exploded(steps, few, checkpoints):
    start, now = _mean(steps[:few], "entropy", few), _mean(steps, "entropy", few)
    if len(steps) > few and now > 3 * start and now > start + 1:
        yield _alarm("exploded", now=now, start=start, back=_back(checkpoints, steps[-few]["step"]))


def _far_from_base(steps, n, args):
    kl = median([line.get("kl") or 0.0 for line in steps[-max(5, n // 2) :]])
    if args.beta and kl > 5:
        yield _alarm("far_from_base", kl=kl)


def _best(judge, steps) -> float:
    """The total reward of an ideal completion; if that is unknown, the highest mean so far."""
    best = judge.best_total
    return best if math.isfinite(best) else max(line["reward"] for line in steps)


def _fallen(steps, half, judge, checkpoints):
    means = {end: _mean(steps[:end], "reward", half) for end in range(len(steps), half - 1, -half)}
    at = max(means, key=means.get, default=None)
    if at and means[at] > 0.25 * _best(judge, steps) and (now := means[len(steps)]) < 0.4 * means[at]:
        best = steps[at - 1]["step"]
        yield _alarm("fallen", now=now, most=means[at], best=best, back=_back(checkpoints, best + 1))


def _cut_off(steps, n, args):
    half, limit = max(1, n // 2), args.max_completion_length
    share, lately = (_mean(steps, "completions/clipped_ratio", count) for count in (n, half))
    first, now = (_mean(part, "completions/mean_length", half) for part in (steps[:half], steps))
    if share > 0.99:
        yield _alarm("no_end", steps=_ago(steps, n), limit=limit)
    elif lately > 0.25 and now > 2 * first:
        yield _alarm("too_long", now=now, first=first, share=lately, limit=limit)
    elif share > 0.5:
        yield _alarm("cut_off", share=share, limit=limit, double=2 * limit)


def _no_variance(steps, n, judge, args):
    share, reward = _mean(steps, "frac_reward_zero_std", n), _mean(steps, "reward", n)
    if share < 0.9 or args.scale_rewards == "batch":  # TRL's figure is then about the batch
        return
    best, kind = _best(judge, steps), "no_variance"
    if not any(line["reward"] for line in steps):
        kind = "nothing_earned"
    elif reward < 0.5 * best:
        kind = "too_hard"
    elif reward > 0.9 * best:
        kind = "too_easy"
    yield _alarm(kind, share=share, reward=reward, best=best, steps=_ago(steps, len(steps)))


def _silent(steps, n, judge):
    if len(steps) < 1.5 * n or not any(line["reward"] for line in steps):
        return
    for name, reward in judge.rewards.items():
        fired = any(line.get(f"rewards/{name}/mean") for line in steps)
        if reward.high > 0 and judge.weights[name] and not fired:
            yield _alarm("silent", name, steps=_ago(steps, len(steps)))


def _always(steps, n, judge):
    for name, reward in judge.rewards.items():
        paid = [line.get(f"rewards/{name}/mean") for line in steps[:n]]
        if reward.high <= 0 or reward.needs or not judge.weights[name]:
            continue
        if any((mean or 0) < 0.999 * reward.high for mean in paid):
            continue
        if reward.score("") == reward.high:  # so the cause is not that the policy is perfect
            yield _alarm("always", name)


def _still(steps, n):
    norms = {line.get("adapter/norm") for line in steps[-n:]}
    if len(norms) == 1 and None not in norms and _mean(steps, "frac_reward_zero_std", n) < 0.9:
        yield _alarm("still", steps=_ago(steps, n))


def _unlike_sampler(steps, args):
    # Rounding changes uncertain tokens most, so the difference is measured in parts of the entropy, too: that
    # of the same tokens, if the canary logged it. A 0.5B model in bfloat16 and vLLM differ by 0.03 nats
    # (ServiceNow/Fast-LLM#525); with a temperature wrong by 0.3 the tiny policy differs by 0.06 to 0.08.
    lines = [line for line in steps if line.get(f"{FIGURE}/mean") is not None]
    lines = [line for line in lines if line.get(ENTROPY) or line.get("entropy")][-5:]
    if len(lines) < 5 or not whole_distribution(args):
        return
    far = [line[f"{FIGURE}/mean"] for line in lines]
    parts = [x / (line.get(ENTROPY) or line["entropy"]) for x, line in zip(far, lines, strict=True)]
    if median(far) > 0.05 and median(parts) > 0.06:
        yield _alarm("unlike_sampler", far=fmean(far), most=max(line[f"{FIGURE}/max"] for line in lines))


def _collapsed(steps, n, few, judge):
    start, now = _mean(steps[:few], "entropy", few), _mean(steps, "entropy", n)
    if now < 0.02 * start and _mean(steps, "reward", n) < 0.8 * _best(judge, steps):
        yield _alarm("collapsed", now=now, start=start)


def _hacked(history, steps, n, judge, log):
    rates = {line["step"]: line for line in history if line.get("validation/strict") is not None}
    if len(rates) < 2:
        return
    best, last = max(rates, key=lambda step: rates[step]["validation/strict"]), max(rates)
    most, now = (rates[step]["validation/strict"] for step in (best, last))
    (low, _), (_, high) = (
        wilson(round(rate * rates[step]["validation/n"]), int(rates[step]["validation/n"]))
        for step, rate in ((best, most), (last, now))
    )
    few = max(3, n // 4)
    before = [line for line in steps if line["step"] <= best] or steps[:few]
    if high < low and _mean(steps, "reward", few) > _mean(before, "reward", few):
        yield _alarm("hacked", now=now, most=most, best=best, example=_example(log, judge.answer))


def _example(log, judge) -> str:
    """The wrong completion of highest advantage, as the end of a sentence; "" if it cannot be determined."""
    if log is None or "answer" not in log or judge.needs:
        return ""
    for _, line in log.sort_values("advantage", ascending=False).iterrows():
        if (judge.score(line["completion"], line["answer"]) or 0.0) < judge.high:
            text, gold = line["completion"][:300], line["answer"]
            return f", as in this completion (advantage {line['advantage']:+.1f}, gold {gold!r}): {text!r}"
    return ""


def _repeated(log, group_size: int):
    if log is None:
        return
    batches = {tuple(zip(part["prompt"], part["completion"], strict=True)) for _, part in log.groupby("step")}
    prompts = [prompt for batch in batches for prompt, _ in batch]  # a batch used again counts once
    groups, different = len(prompts) / group_size, len(set(prompts))
    if groups >= GROUPS / 2 and different < groups / 4:
        questions = f"{different} different question{'s' * (different > 1)}"
        yield _alarm("repeated", groups=groups, questions=questions)
