"""Accuracy on problems that were not trained on, with an interval.

Strict: the answer block is right, by the same function that pays the correctness reward.
Lenient: the last number anywhere is right. Format: the strict format reward fires.
"""

import re
from dataclasses import asdict, dataclass
from fractions import Fraction

from r1nb.answers import last_number, same_answer
from r1nb.prompts import PREFILL
from r1nb.rewards import REWARDS, correctness_reward_func, strict_format_reward_func


@dataclass(frozen=True)
class Graded:
    """One problem, what the policy answered, and how that counts."""

    question: str
    answer: str
    completion: str
    ids: tuple[int, ...]
    cut: bool
    strict: bool
    lenient: bool
    format: bool


def grade(question: str, answer: str, completion) -> Graded:
    """Grade a policy.Completion against the gold answer."""
    text = completion.text
    return Graded(
        question=question,
        answer=answer,
        completion=text,
        ids=completion.ids,
        cut=completion.cut,
        strict=correctness_reward_func.score(text, answer) > 0,
        lenient=same_answer(last_number(text) or "", answer),
        format=strict_format_reward_func.score(text, answer) > 0,
    )


def evaluate(policy, rows, recipe, prefill: str = "") -> list[Graded]:
    """Greedy answers of a policy to every row, graded; in batches of eval_batch_size."""
    size = recipe.evaluation.eval_batch_size
    graded = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        completions = policy.generate(
            batch["prompt"],
            max_new_tokens=recipe.grpo["max_completion_length"],
            prefill=prefill,
        )
        graded += map(grade, batch["question"], batch["answer"], completions)
    return graded


def summarize(graded: list[Graded]) -> dict:
    """Rates with their 95 % intervals, mean length in tokens, and each reward's mean.

    {"strict": rate, "strict_interval": [low, high], "lenient": .., "format": .., "cut": ..,
    "tokens": .., "n": .., "rewards": {name: mean}}
    """
    n = len(graded)
    summary: dict = {"n": n}
    for rate in ("strict", "lenient", "format"):
        hits = sum(getattr(g, rate) for g in graded)
        summary[rate] = hits / n
        summary[f"{rate}_interval"] = wilson(hits, n)
    summary["cut"] = sum(g.cut for g in graded) / n
    summary["tokens"] = sum(len(g.ids) for g in graded) / n
    summary["rewards"] = {
        name: sum(func.score(g.completion, g.answer) for g in graded) / n for name, func in REWARDS.items()
    }
    return summary


def wilson(hits: int, n: int) -> list[float]:
    """The 95 % Wilson score interval of a rate (Wilson 1927; scipy)."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return [float(interval.low), float(interval.high)]


def evaluate_splits(policy, tests: dict, recipe, prefill: bool = False) -> dict:
    """{split: graded} over the test splits; `prefill` opens each reply with <reasoning>."""
    opening = PREFILL if prefill else ""
    return {name: evaluate(policy, rows, recipe, opening) for name, rows in tests.items()}


CHECK = re.compile(
    r"=(?P<first>\d+)[^\n=]*Check: (?P<a>\d+)(?P<op>[-+*/])(?P<b>\d+)=(?P<again>\d+), (?P<word>right|not)"
)


def count_checks(texts: list[str]) -> dict[str, int]:
    """How often a step is checked, and what the check did to its result.

    {"completions", "with_check", "checks", "corrected": wrong before and right after,
    "spoiled": right before and wrong after, "missed": wrong and left so}. The truth is arithmetic.
    """
    counts = dict.fromkeys(("checks", "corrected", "spoiled", "missed"), 0)
    with_check = 0
    for text in texts:
        matches = list(CHECK.finditer(text))
        with_check += bool(matches)
        for match in matches:
            a, op, b = int(match["a"]), match["op"], int(match["b"])
            if op == "/" and b == 0:
                continue
            truth = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b or 1)}[op]
            before, after = int(match["first"]) == truth, int(match["again"]) == truth
            counts["checks"] += 1
            counts["corrected"] += after and not before
            counts["spoiled"] += before and not after
            counts["missed"] += not before and not after
    return {"completions": len(texts), "with_check": with_check, **counts}


def as_records(graded: list[Graded]) -> list[dict]:
    """Plain dicts, for a JSON file."""
    return [asdict(g) for g in graded]
