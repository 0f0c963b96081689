"""Compare two policies on the same problems, and find where a gain in accuracy comes from."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from math import isnan, nan
from statistics import fmean

from r1nb.text.statistics import mcnemar, mean_interval


@dataclass(frozen=True)
class Comparison:
    """How many problems both policies, one or neither solved, and the difference of their accuracies."""

    both: int
    first_only: int
    second_only: int
    neither: int
    difference: float  # second - first
    interval: list[float]  # 95 %, bootstrap over problems
    p: float  # McNemar's exact test

    @property
    def n(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def change(self) -> str:
        """The difference with its interval, and p, in words."""
        low, high = (100 * end for end in self.interval)
        interval = "" if isnan(low) else f" [{low:+.1f}, {high:+.1f}]"  # unknown for a single problem
        p = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.2g}"
        return f"Difference: {100 * self.difference:+.1f} points{interval}, McNemar's exact test: {p}."

    def __str__(self) -> str:
        return (
            f"Both right: {self.both}, only the first: {self.first_only}, only the second: "
            f"{self.second_only}, neither: {self.neither}. {self.change}"
        )


def compare(first: list, second: list, rate: str = "strict") -> Comparison:
    """Compare two lists of grading.Graded, problem by problem, by strict or lenient accuracy.

    A problem is left out if a judge could not score one of its two answers. Raises ValueError if the lists
    answer different problems, or the same problems in another order.
    """
    pairs = [(getattr(a, rate), getattr(b, rate)) for a, b in _judged(first, second)]
    both, first_only, second_only, neither = (pairs.count(pair) for pair in product((True, False), repeat=2))
    differences, p = [b - a for a, b in pairs], mcnemar(first_only, second_only)
    interval = mean_interval(differences)
    return Comparison(both, first_only, second_only, neither, _mean(differences), interval, p)


def sources_of_gain(before: list, prefilled: list, after: list) -> dict[str, list[float]]:
    """Split the gain in strict accuracy from before to after into parts: {part: [mean, low, high]}.

    The first three parts add up to the whole gain, "in all":
    format     answers that were right before, but not in the answer block: lenient(before) - strict(before)
    mode       the gain of the untrained policy from reasoning: strict(prefilled) - lenient(before)
    remainder  the gain that neither explains: strict(after) - strict(prefilled)
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
    """Up to `most` (first, second) pairs whose strict verdict changed, the most informative ones.

    Half of them went from right to wrong, if there are enough such pairs. Pairs whose lenient verdict changed
    too are preferred, since more than their format changed; then problems with more steps.
    """
    changed = [(a, b) for a, b in _judged(first, second) if a.strict != b.strict]
    changed.sort(key=lambda pair: (pair[0].lenient == pair[1].lenient, -pair[0].steps))
    lost, won = ([pair for pair in changed if pair[0].strict == right] for right in (True, False))
    lost = lost[: max(most // 2, most - len(won))]
    return [*lost, *won[: most - len(lost)]]


def by_group(graded: list) -> dict[tuple[str, int], list]:
    """{(kind, number of steps): graded problems}; ("", 0) if the dataset has neither."""
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
