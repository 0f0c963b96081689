"""Generate the bundled Countdown problems, all solvable, with the columns of Jiayi-Pan/Countdown-Tasks-3to4.

    python data/make_countdown.py      # writes data/countdown/*.jsonl, always the same bytes

A problem asks for a target to be made from three numbers, each used once. A hash of the sorted numbers and
the target assigns it to the test, validation or training split, so that no test problem can reach the
training split or the policy's corpus.
"""

import hashlib
import random
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from make_problems import OPERATORS, write

SIZES = {"train": 1200, "validation": 240, "test": 280}
NUMBERS, TARGETS = (1, 9), (1, 60)


def split_of(nums: tuple[int, ...], target: int) -> str:
    """The split of a problem: 'test', 'validation' or 'train'. The order of the numbers does not matter."""
    digest = hashlib.sha256(f"{sorted(nums)}:{target}".encode()).digest()
    return {0: "test", 1: "validation"}.get(digest[0] % 6, "train")


@dataclass(frozen=True)
class Attempt:
    """Two steps that use up three numbers, written as the policy's corpus writes them."""

    steps: str  # "8*3=24, 24+1=25"
    expression: str  # "8*3+1"
    value: int


@dataclass(frozen=True)
class Problem:
    nums: tuple[int, ...]
    target: int

    @property
    def question(self) -> str:
        from r1nb.tasks.sources import SOURCES

        return SOURCES["Jiayi-Pan/Countdown-Tasks-3to4"].read(self.row())["question"]

    def row(self) -> dict:
        return {"nums": list(self.nums), "target": self.target}

    def attempts(self) -> list[Attempt]:
        """For each first step, the attempt that comes closest to the target."""
        beginnings: dict[tuple[str, int], list[Attempt]] = {}
        for key, attempt in _all_attempts(self.nums):
            beginnings.setdefault(key, []).append(attempt)
        return [min(some, key=lambda a: abs(a.value - self.target)) for some in beginnings.values()]


def _all_attempts(nums: tuple[int, ...]):
    """Yield ((first step, number left), Attempt); every result is a whole number above 0."""
    for a, b, c in sorted(set(permutations(nums)), reverse=True):
        for first, begin in OPERATORS.items():
            if (value := begin(a, b)) <= 0 or (a < b and first in "+*"):
                continue
            step = f"{a}{first}{b}"
            bracketed = f"({step})" if first in "+-" else step
            for second, end in OPERATORS.items():
                left = bracketed if second in "*/" else step
                pairs = [(value, c, f"{left}{second}{c}")]
                if second in "-/":  # the order of operands matters
                    right = f"({step})" if second == "/" or first in "+-" else step
                    pairs.append((c, value, f"{c}{second}{right}"))
                for x, y, expression in pairs:
                    if (result := end(x, y)) > 0:
                        steps = f"{step}={value}, {x}{second}{y}={result}"
                        yield (step, c), Attempt(steps, expression, result)


def draw(rng: random.Random, split: str) -> Problem:
    """Draw a solvable problem of a split."""
    while True:
        nums = tuple(rng.randint(*NUMBERS) for _ in range(3))
        _, attempt = rng.choice(list(_all_attempts(nums)))
        in_range = TARGETS[0] <= attempt.value <= TARGETS[1]
        if in_range and split_of(nums, attempt.value) == split:
            return Problem(nums, attempt.value)


def bundled(split: str) -> list[Problem]:
    """The problems of a bundled file; none occurs twice, not even with its numbers in another order."""
    rng, problems = random.Random(f"r1nb countdown {split}"), {}
    while len(problems) < SIZES[split]:
        problem = draw(rng, split)
        problems.setdefault((*sorted(problem.nums), problem.target), problem)
    return list(problems.values())


if __name__ == "__main__":
    write(Path(__file__).parent / "countdown", SIZES, bundled)
