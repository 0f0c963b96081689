"""Two policies on the same problems, and where a gain comes from."""

from collections import defaultdict
from dataclasses import dataclass
from math import nan

from r1nb.text.statistics import mcnemar, mean_interval


@dataclass(frozen=True)
class Comparison:
    """How two policies fare on the same problems: counts of problems, difference of the rates."""

    both: int
    first_only: int
    second_only: int
    neither: int
    difference: float  # second - first
    interval: list[float]  # 95 %, bootstrap over problems
    p: float  # McNemar's exact test

    def __str__(self) -> str:
        low, high = (f"{100 * end:+.1f}" for end in self.interval)
        p = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.2g}"
        return (
            f"Right both times {self.both}, only the first {self.first_only}, only the second "
            f"{self.second_only}, never {self.neither}: {100 * self.difference:+.1f} points [{low}, {high}], "
            f"McNemar's exact {p}."
        )


def compare(first: list, second: list) -> Comparison:
    """Compare two lists of evaluation.Graded, problem by problem, by their strict verdicts.

    Problems that a judge could not score on one side are left out. Raises ValueError if the lists answer
    different problems.
    """
    pairs = [(a.strict, b.strict) for a, b in _paired(first, second) if None not in (a.strict, b.strict)]
    differences = [b - a for a, b in pairs]
    first_only, second_only = pairs.count((True, False)), pairs.count((False, True))
    return Comparison(
        both=pairs.count((True, True)),
        first_only=first_only,
        second_only=second_only,
        neither=pairs.count((False, False)),
        difference=_mean(differences),
        interval=mean_interval(differences),
        p=mcnemar(first_only, second_only),
    )


def sources_of_gain(before: list, prefilled: list, after: list) -> dict[str, list[float]]:
    """Points of strict accuracy, from before to after, by what they owe to: {part: [share, low, high]}.

    The parts add up to the whole:
    format     answers that were right before, but not in the answer block: lenient - strict, before
    mode       what reasoning is worth to the untrained policy: strict, prefilled, - lenient, before
    remainder  strict, after, - strict, prefilled: what neither explains
    Each mean is over the problems, with its 95 % bootstrap interval.
    """
    rows = [
        (a.strict, a.lenient, b.strict, c.strict)
        for (a, b), (_, c) in zip(_paired(before, prefilled), _paired(before, after), strict=True)
    ]
    rows = [row for row in rows if None not in row]
    parts = {
        "format": [lenient - strict for strict, lenient, _, _ in rows],
        "mode": [prefilled - lenient for _, lenient, prefilled, _ in rows],
        "remainder": [after - prefilled for *_, prefilled, after in rows],
        "in all": [after - strict for strict, *_, after in rows],
    }
    return {name: [_mean(part), *mean_interval(part)] for name, part in parts.items()}


def telling_changes(first: list, second: list, most: int = 10) -> list[tuple]:
    """(first, second) pairs whose strict verdict changed, the most telling ones.

    Half of `most` are right to wrong, if there are so many. Those come first in which more than the format
    changed (the lenient verdict did too), and of these the problems of most steps.
    """
    changed = [(a, b) for a, b in _paired(first, second) if None not in (a.strict, b.strict)]
    changed = [(a, b) for a, b in changed if a.strict != b.strict]
    changed.sort(key=lambda pair: (pair[0].lenient == pair[1].lenient, -pair[0].steps))
    lost, won = ([pair for pair in changed if pair[0].strict == right] for right in (True, False))
    lost = lost[: max(most // 2, most - len(won))]
    return [*lost, *won[: most - len(lost)]]


def by_group(graded: list) -> dict[tuple[str, int], list]:
    """Graded problems by (kind, number of steps), where the dataset tells them."""
    groups = defaultdict(list)
    for g in graded:
        groups[g.kind, g.steps].append(g)
    return dict(sorted(groups.items()))


def _mean(values: list) -> float:
    return sum(values) / len(values) if values else nan


def _paired(first: list, second: list) -> list[tuple]:
    if [g.question for g in first] != [g.question for g in second]:
        raise ValueError("The two evaluations are of different problems, or in another order.")
    return list(zip(first, second, strict=True))
