"""Accuracy on problems that were not trained on, with an interval.

Strict: the answer block earns full marks from the reward of the recipe that judges answers; what a
judge could not score is left out. Lenient: the last
number anywhere is right, or the last line. Format: the reward that judges the format fires.
"""

import re
from dataclasses import asdict, dataclass
from fractions import Fraction

from r1nb.answers import last_number
from r1nb.oom import out_of_memory_in_words
from r1nb.prompts import LAYOUTS, format_answer


@dataclass(frozen=True)
class Graded:
    """One problem, what the policy answered, and how that counts."""

    question: str
    answer: str
    completion: str
    ids: tuple[int, ...]
    cut: bool
    strict: bool | None  # None: a judge could not be asked
    lenient: bool | None
    format: bool
    rewards: dict[str, float | None]


def grade(rows: dict[str, list], completions: list, recipe) -> list[Graded]:
    """Grade a policy.Completion for each row; `rows` is a batch of a Dataset, lists by column."""
    texts = [completion.text for completion in completions]
    columns = rows | {"completion_ids": [list(completion.ids) for completion in completions]}
    answers, layouts = recipe.judge_of("answer", rows), recipe.judge_of("format")
    names = {*recipe.rewards, answers.__name__, layouts.__name__}
    scores = {name: recipe.scorer(name)(texts, **columns) for name in names}
    attempts = [scores[answers.__name__]]
    if answers.threads == 1:  # a judge that has to be asked has read the whole reply
        for find in (last_number, _last_line):
            ends = [format_answer("-", find(text) or "", recipe.data.layout) for text in texts]
            attempts.append(answers(ends, **columns))
    graded = []
    for i, completion in enumerate(completions):
        judged = [attempt[i] for attempt in attempts if attempt[i] is not None]
        right = [score >= answers.high for score in judged]
        graded.append(
            Graded(
                question=rows["question"][i],
                answer=rows["answer"][i],
                completion=completion.text,
                ids=completion.ids,
                cut=completion.cut,
                strict=right[0] if right else None,
                lenient=any(right) if right else None,
                format=(scores[layouts.__name__][i] or 0.0) > 0,
                rewards={name: scores[name][i] for name in recipe.rewards},
            )
        )
    return graded


def _last_line(text: str) -> str:
    """The last line of a text, without tags."""
    return re.sub(r"</?\w+>", "", text).strip().rpartition("\n")[2]


def evaluate(policy, rows, recipe, prefill: str = "") -> list[Graded]:
    """Greedy answers of a policy to every row, graded; in batches of eval_batch_size."""
    size, limit = recipe.evaluation.eval_batch_size, recipe.grpo["max_completion_length"]
    graded = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        with out_of_memory_in_words(recipe):
            completions = policy.generate(batch["prompt"], max_new_tokens=limit, prefill=prefill)
        graded += grade(batch, completions, recipe)
    policy.rest()
    return graded


def summarize(graded: list[Graded]) -> dict:
    """Rates with their 95 % intervals, mean length in tokens, and each reward's mean.

    {"strict": rate, "strict_interval": [low, high], "lenient": .., "format": .., "cut": ..,
    "tokens": .., "n": .., "rewards": {name: mean}}
    """
    n = len(graded)
    summary: dict = {"n": n}
    for rate in ("strict", "lenient", "format"):
        judged = [getattr(g, rate) for g in graded if getattr(g, rate) is not None]
        summary[rate] = sum(judged) / len(judged) if judged else None
        summary[f"{rate}_interval"] = wilson(sum(judged), len(judged)) if judged else None
    summary["cut"] = sum(g.cut for g in graded) / n
    summary["tokens"] = sum(len(g.ids) for g in graded) / n
    summary["rewards"] = {}
    for name in graded[0].rewards if graded else ():
        counted = [g.rewards[name] for g in graded if g.rewards[name] is not None]
        summary["rewards"][name] = sum(counted) / len(counted) if counted else None
    return summary


def wilson(hits: int, n: int) -> list[float]:
    """The 95 % Wilson score interval of a rate (Wilson 1927; scipy)."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return [float(interval.low), float(interval.high)]


def evaluate_splits(policy, tests: dict, recipe, prefill: bool = False) -> dict:
    """{split: graded} over the test splits; `prefill` opens each reply with <reasoning>."""
    opening = LAYOUTS[recipe.data.layout].prefill if prefill else ""
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
