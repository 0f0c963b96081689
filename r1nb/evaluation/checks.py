"""Check before training that the rewards tell good completions from bad ones, and that GRPO can learn."""

import math

from r1nb.evaluation.accuracy import sample_groups
from r1nb.rewards.grading import Judge
from r1nb.rewards.mathematics import readable
from r1nb.rewards.registry import columns_of, short_name
from r1nb.text.arithmetic import solve_countdown
from r1nb.text.prompts import Layout, format_prompt

STRICT = ("strict_format_reward_func", "r1_format_reward_func")
FORMATS = (*STRICT, "soft_format_reward_func")
READERS = ("correctness_reward_func", "countdown_reward_func", "math_reward_func", "gym_reward_func",
           "steps_reward_func")  # fmt: skip
ALL = (*FORMATS, *READERS, "int_reward_func", "xmlcount_reward_func")
FLAWS = {  # a common flaw of a completion -> the rewards that must pay less for it
    "no tags": ALL,
    "answer not closed": ALL,
    "two answers": ALL,
    "wrong answer": READERS,
    "text before": STRICT,
    "text after": (*STRICT, "xmlcount_reward_func"),
    "blank reasoning": FORMATS,
}
MOST = 10_000  # golds that are checked
NUMBERS = 5  # in a Countdown problem; solve_countdown cannot search through all solutions with more


def spoil(ideal: str, layout: Layout) -> dict[str, str]:
    """{flaw: the ideal completion with that flaw}."""
    opened, closed, begin, end = layout.tags
    reasoning, _, block = ideal.partition(begin)
    return {
        "no tags": block.partition(end)[0].strip(),
        "answer not closed": ideal.removesuffix(end).rstrip(),
        "two answers": f"{reasoning}{begin}\n1\n{end}\n{begin}{block}",
        "wrong answer": f"{reasoning}{begin}\n-98765\n{end}",
        "text before": f"Sure! Here it is.\n{ideal}",
        "text after": f"{ideal}\nI hope this helps.",
        "blank reasoning": f"{opened}\n\n{closed}{ideal.partition(closed)[2]}",
    }


def ideal_completion(row: dict, layout: Layout) -> str:
    """The completion that should earn full marks: the row's own steps and gold, in the layout."""
    answer = row["answer"]
    if _numbers(row):  # a Countdown row has no gold: search for a solution
        answer = solve_countdown(row["nums"], row["target"]) or answer
    return layout.format_reply(row.get("solution") or f"So the answer is {answer}.", answer)


def _numbers(row: dict) -> int:
    """How many numbers a Countdown problem has; 0 for any other row."""
    nums = row.get("nums")
    return len(nums) if isinstance(nums, list) and row.get("target") is not None else 0


def flaw_table(row: dict, judge: Judge):
    """A DataFrame: the rewards of a row's ideal completion, and of the same with each common flaw."""
    import pandas

    ideal = ideal_completion(row, judge.layout)
    texts = {"ideal": ideal} | spoil(ideal, judge.layout)
    scores = [
        [_explain(reward, text, row)[0] for reward in judge.rewards.values()] for text in texts.values()
    ]
    table = pandas.DataFrame(scores, list(texts), [short_name(name) for name in judge.rewards], dtype=float)
    table["total"] = (table * list(judge.weights.values())).sum(axis=1)
    return table


def _explain(reward, text: str, row: dict) -> tuple[float | None, str]:
    score, reason = reward.explain(text, row["answer"], **columns_of(row))
    return score, reason or "it gives no reason"


def check_rewards(rows, judge: Judge) -> list[str]:
    """Score ideal and flawed completions; returns a sentence for each problem.

    Each reward should pay for an ideal completion and pay less for each flaw that it must notice, and each
    gold (of the first 10,000 rows) should earn full marks in an ideal completion.
    """
    row = next((row for row in rows if row["answer"] and _numbers(row) <= NUMBERS), None)
    if row is None:  # no row has a gold, or each has too many numbers of Countdown
        return []
    ideal, scores, found = ideal_completion(row, judge.layout), {}, []
    for name, reward in judge.rewards.items():
        score, why = _explain(reward, ideal, row)
        scores[name] = score
        if score is None:
            found.append(f"{name} gave no score for an ideal completion: {why}.")
        elif reward.judges and score < reward.high:
            found.append(f"{name} pays {score:g} of {reward.high:g} for an ideal completion: {why}.")
        elif score <= 0 < reward.high:
            found.append(f"{name} never fires, not even on an ideal completion: {why}.")
    for flaw, text in spoil(ideal, judge.layout).items():
        for name, reward in judge.rewards.items():
            if (
                name in FLAWS[flaw]
                and scores[name]
                and not (_explain(reward, text, row)[0] or 0.0) < scores[name]
            ):
                found.append(f"{name} pays a completion with the flaw {flaw!r} as much as an ideal one.")
    if not found and judge.answer.threads == 1:  # a judge is not asked about every gold
        most = MOST if _numbers(row) < NUMBERS else 100
        found += _check_golds(rows.select(range(min(most, len(rows)))), judge)
    return found


def _check_golds(rows, judge: Judge) -> list[str]:
    """A list of one sentence about the golds that cannot earn full marks; [] if there are none."""
    poor, answers = [], judge.answer
    for row in (row for row in rows if row["answer"] and _numbers(row) <= NUMBERS):
        unread = answers.__name__ == "math_reward_func" and not readable(row["answer"])
        if unread or (_explain(answers, ideal_completion(row, judge.layout), row)[0] or 0.0) < answers.high:
            poor.append(row["answer"])
    if not poor:
        return []
    return [
        f"{len(poor)} of {len(rows)} golds earn less than full marks from {answers.__name__} in an ideal "
        f"completion, for example {poor[0][:60]!r}: drop them, or choose a reward that can read them."
    ]


def check_text(policy, row: dict, layout: Layout) -> list[str]:
    """A list of one sentence about text that is lost between the policy and the rewards; [] if none is.

    The whole prompt must reach the policy. The row's ideal completion, written in the policy's tokens after
    that prompt and decoded as TRL decodes it, must reach the rewards.
    """
    prompt, ideal, begun = format_prompt(policy.tokenizer, row["prompt"]), ideal_completion(row, layout), ""
    if lost := [each["role"] for each in row["prompt"] if each["content"].strip() not in prompt]:
        return [f"The chat template drops text of the {lost[0]} message: the policy does not read it."]
    if prompt.rstrip().endswith(layout.tags[0]):
        begun = f", since the prompt ends with {layout.tags[0]}"
    ids = policy.tokenizer(ideal.removeprefix(layout.tags[0] if begun else ""), add_special_tokens=False)
    text = policy._completion(ids.input_ids + policy.end_tokens[:1], "").text
    if text.strip() == ideal.strip():
        return []
    why = layout.why_unreadable(text) or "other characters"
    return [
        f"An ideal completion reaches the rewards as {text[:40]!r} ... {text[-20:]!r} ({why}){begun}: the "
        "tokenizer must keep its text in decoding (no special, unknown or end tokens in it)."
    ]


def check_groups(policy, rows, recipe, groups: int = 4, most: int = 32) -> list[str]:
    """Sample some groups as training will; returns a sentence for each problem.

    Problems are text that is lost (check_text), rewards that never fire, groups without variance, and
    completions that are cut off. While no group has variance, more groups are sampled, up to `most`: one
    right completion in 250 is enough to start.
    """
    judge, sampling, size = recipe.judge(rows.column_names), recipe.sampling, recipe.group_size
    batch_size, sampled, totals = recipe.evaluation.eval_batch_size, [], []
    while len(sampled) < min(most, len(rows)) and all(len(set(group)) == 1 for group in totals):
        some = rows.select(range(len(sampled), min(len(sampled) + groups, len(rows))))
        sampled += sample_groups(policy, some, judge, sampling, batch_size, size, title="first groups")
        totals = [[judge.total(g.rewards) for g in group] for group in sampled]
    graded = [g for group in sampled for g in group]
    n, cut, found = len(graded), sum(g.cut for g in graded), check_text(policy, rows[0], judge.layout)
    for name in judge.rewards:
        if unjudged := sum(g.rewards[name] is None for g in graded):
            found.append(f"{name} gave no score for {unjudged} of {n} completions: is its judge reachable?")
        if unjudged == n:
            return found
    silent = [
        name
        for name, reward in judge.rewards.items()
        if reward.high > 0 and judge.weights[name] and not any(g.rewards[name] for g in graded)
    ]
    if all(len(set(group)) == 1 for group in totals):
        remedy = "add a short SFT start (recipe section sft), or take problems the policy sometimes solves"
        best = f" of {judge.best_total:g}" if math.isfinite(judge.best_total) else ""
        if best and min(min(group) for group in totals) >= judge.best_total:
            remedy = "take harder problems"
        found.append(
            f"In each of {len(totals)} groups all {size} completions earn the same ({totals[0][0]:g}{best} "
            f"in the first): GRPO has nothing to choose from; {remedy}."
        )
    elif silent:
        found.append(f"On {n} completions these rewards never fired: {', '.join(silent)}.")
    if cut > n / 2:
        limit = f"{sampling.max_tokens} tokens"
        found.append(f"{cut} of {n} completions were cut off at {limit}: raise max_completion_length.")
    return found
