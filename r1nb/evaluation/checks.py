"""Before training: can the rewards tell good from bad, and is there anything to learn from?"""

from dataclasses import dataclass
from statistics import pstdev

from r1nb.evaluation.accuracy import sample_groups
from r1nb.rewards.grading import Judge
from r1nb.rewards.mathematics import readable
from r1nb.rewards.registry import columns_of, short_name
from r1nb.text.arithmetic import solve_countdown
from r1nb.text.prompts import Layout

STRICT = ("strict_format_reward_func", "r1_format_reward_func")
FORMATS = (*STRICT, "soft_format_reward_func")
READERS = ("correctness_reward_func", "int_reward_func", "countdown_reward_func", "math_reward_func",
           "gym_reward_func", "steps_reward_func")  # fmt: skip
ALL = (*FORMATS, *READERS, "xmlcount_reward_func")
MOST = 10_000  # golds that are looked at


@dataclass(frozen=True)
class Flaw:
    """A common flaw of a completion, and the rewards that it must cost something."""

    spoil: object  # (ideal completion, tags) -> the same with the flaw
    costs: tuple[str, ...]


FLAWS = {
    "no tags": Flaw(lambda text, tags: text.partition(tags[2])[2].partition(tags[3])[0].strip(), ALL),
    "answer not closed": Flaw(lambda text, tags: text.removesuffix(tags[3]).rstrip(), ALL),
    "two answers": Flaw(lambda text, tags: text.replace(tags[2], f"{tags[2]}\n1\n{tags[3]}\n{tags[2]}"), ALL),
    "wrong answer": Flaw(
        lambda text, tags: text.partition(tags[2])[0] + f"{tags[2]}\n-98765\n{tags[3]}",
        tuple(name for name in READERS if name != "int_reward_func"),
    ),
    "text before": Flaw(lambda text, tags: f"Sure! Here it is.\n{text}", STRICT),
    "text after": Flaw(lambda text, tags: f"{text}\nI hope this helps.", (*STRICT, "xmlcount_reward_func")),
    "blank reasoning": Flaw(
        lambda text, tags: f"{tags[0]}\n\n{tags[1]}{text.partition(tags[1])[2]}", FORMATS
    ),
}


def ideal_completion(row: dict, layout: Layout) -> str:
    """The completion that should earn everything: the row's own steps and gold, in the layout."""
    answer = row["answer"]
    if row.get("nums"):  # Countdown has no gold, but a solution can be searched for
        answer = solve_countdown(row["nums"], row["target"]) or answer
    return layout.format_reply(row.get("solution") or f"So the answer is {answer}.", answer)


def flaw_table(row: dict, judge: Judge):
    """What an ideal completion of a row earns, and the same with each common flaw, as a DataFrame."""
    import pandas

    ideal = ideal_completion(row, judge.layout)
    texts = {"ideal": ideal} | {name: flaw.spoil(ideal, judge.layout.tags) for name, flaw in FLAWS.items()}
    scores = [
        [reward.score(text, row["answer"], **columns_of(row)) for reward in judge.rewards.values()]
        for text in texts.values()
    ]
    table = pandas.DataFrame(scores, list(texts), [short_name(name) for name in judge.rewards], dtype=float)
    table["total"] = (table * list(judge.weights.values())).sum(axis=1)
    return table


def check_rewards(rows, judge: Judge) -> list[str]:
    """Score ideal and spoilt completions and say what is wrong, a sentence each; [] if nothing is.

    Does each reward fire on an ideal completion, does each common flaw cost what it should, does
    every gold (of the first 10,000 rows) earn full marks when wrapped ideally?
    """
    found, layout, answers = [], judge.layout, judge.answer
    row = next((row for row in rows if row["answer"]), None)
    if row is None:  # a task that only its own scorer can judge: there is no ideal to try
        return []
    ideal, scores = ideal_completion(row, layout), {}
    for name, reward in judge.rewards.items():
        score, reason = reward.explain(ideal, row["answer"], **columns_of(row))
        scores[name], why = score, reason or "it gives no reason"
        if score is None:
            found.append(f"{name} gave no score for an ideal completion: {why}.")
        elif reward.judges and score < reward.high:
            found.append(f"{name} pays {score:g} of {reward.high:g} for an ideal completion: {why}.")
        elif score <= 0 < reward.high:
            found.append(f"{name} never fires, not even on an ideal completion: {why}.")
    for flaw, about in FLAWS.items():
        text = about.spoil(ideal, layout.tags)
        for name in (name for name in judge.rewards if name in about.costs and scores[name]):
            if not judge.rewards[name].score(text, row["answer"], **columns_of(row)) < scores[name]:
                found.append(f"{name} pays a completion with the flaw {flaw!r} as much as an ideal one.")
    if answers.threads > 1 or found:  # a judge is not asked about every gold
        return found
    poor = []
    for row in rows.select(range(min(MOST, len(rows)))):
        text, gold = ideal_completion(row, layout), row["answer"]
        if not gold:
            continue
        unread = answers.__name__ == "math_reward_func" and not readable(gold)
        if unread or (answers.score(text, gold, **columns_of(row)) or 0.0) < answers.high:
            poor.append(gold)
    if poor:
        found.append(
            f"{len(poor)} of {min(MOST, len(rows))} golds earn less than full marks from {answers.__name__} "
            f"though wrapped ideally, as {poor[0][:60]!r}: drop them, or choose a reward that can read them."
        )
    return found


def check_groups(policy, rows, recipe, groups: int = 4) -> list[str]:
    """Sample some groups as training will and say what is wrong, a sentence each; [] if nothing is.

    Looks for rewards that never fire, groups without variance, and completions cut off.
    """
    judge, sampling, size = recipe.judge(rows.column_names), recipe.sampling, recipe.group_size
    some, batch_size = rows.select(range(min(groups, len(rows)))), recipe.evaluation.eval_batch_size
    sampled = sample_groups(policy, some, judge, sampling, batch_size, size)
    graded = [g for group in sampled for g in group]
    scores = {name: [g.rewards[name] for g in graded] for name in judge.rewards}
    totals = [judge.total(g.rewards) for g in graded]
    spread = [pstdev(totals[i : i + size]) for i in range(0, len(totals), size)]
    cut = sum(g.cut for g in graded)
    n, found = len(graded), []
    for name, paid in scores.items():
        if unjudged := sum(score is None for score in paid):
            found.append(f"{name} gave no score for {unjudged} of {n} completions: is its judge reachable?")
        if unjudged == n:
            return found
    best = judge.best_total
    if not any(spread):
        remedy = "a short SFT start (the recipe's sft section) helps, or problems that it solves now and then"
        if min(totals) >= best:
            remedy = "take harder problems"
        found.append(
            f"In each of {len(spread)} groups all {size} completions earn the same ({totals[0]:g} of "
            f"{best:g} in the first): GRPO has nothing to choose from; {remedy}."
        )
    elif silent := [name for name in scores if not any(scores[name]) and judge.rewards[name].high > 0]:
        found.append(f"On {n} completions these rewards never fired: {', '.join(silent)}.")
    if cut > n / 2:
        found.append(
            f"{cut} of {n} completions were cut off at {sampling.max_tokens} tokens: raise max_completion_length."
        )
    return found
