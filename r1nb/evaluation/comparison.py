"""Two policies on the same problems, and where a gain comes from."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from math import nan
from statistics import fmean

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
    """Compare two lists of grading.Graded, problem by problem, by their strict verdicts.

    Problems that a judge could not score on one side are left out. Raises ValueError if the lists answer
    different problems.
    """
    pairs = [(a.strict, b.strict) for a, b in _judged(first, second)]
    both, first_only, second_only, neither = (pairs.count(pair) for pair in product((True, False), repeat=2))
    differences, p = [b - a for a, b in pairs], mcnemar(first_only, second_only)
    interval = mean_interval(differences)
    return Comparison(both, first_only, second_only, neither, _mean(differences), interval, p)


def sources_of_gain(before: list, prefilled: list, after: list) -> dict[str, list[float]]:
    """Points of strict accuracy, from before to after, by what they owe to: {part: [share, low, high]}.

    The parts add up to the whole:
    format     answers that were right before, but not in the answer block: lenient - strict, before
    mode       what reasoning is worth to the untrained policy: strict, prefilled, - lenient, before
    remainder  strict, after, - strict, prefilled: what neither explains
    Each mean is over the problems, with its 95 % bootstrap interval.
    """
    pairs = zip(_paired(before, prefilled), _paired(before, after), strict=True)
    rows = [(a, b, c) for (a, b), (_, c) in pairs if None not in (a.strict, b.strict, c.strict)]
    parts = {
        "format": [a.lenient - a.strict for a, _, _ in rows],
        "mode": [b.strict - a.lenient for a, b, _ in rows],
        "remainder": [c.strict - b.strict for _, b, c in rows],
        "in all": [c.strict - a.strict for a, _, c in rows],
    }
    return {name: [_mean(part), *mean_interval(part)] for name, part in parts.items()}


def telling_changes(first: list, second: list, most: int = 10) -> list[tuple]:
    """(first, second) pairs whose strict verdict changed, the most telling ones.

    Half of `most` are right to wrong, if there are so many. Those come first in which more than the format
    changed (the lenient verdict did too), and of these the problems of most steps.
    """
    changed = [(a, b) for a, b in _judged(first, second) if a.strict != b.strict]
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
    return fmean(values) if values else nan


def _judged(first: list, second: list) -> list[tuple]:
    return [(a, b) for a, b in _paired(first, second) if None not in (a.strict, b.strict)]


def _paired(first: list, second: list) -> list[tuple]:
    if [g.question for g in first] != [g.question for g in second]:
        raise ValueError("The two evaluations are of different problems, or in another order.")
    return list(zip(first, second, strict=True))
