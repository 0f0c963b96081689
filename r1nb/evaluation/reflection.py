"""Count reflection and backtracking in what a policy writes, and whether they changed the answer.

Words of reflection need not mean that anything is reflected on: "superficial self-reflection" (arXiv
2503.20783, section 2.3) ends in no better answer. So for Countdown each attempt is evaluated, and the first
one is compared with the answer.
"""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from r1nb.errors import UserError
from r1nb.rewards.r1 import countdown_reward_func
from r1nb.text.arithmetic import SIGNS, evaluate_expression
from r1nb.text.prompts import THINK, Layout
from r1nb.text.statistics import pass_at_k

STEP_CHECK = re.compile(
    r"=(?P<first>\d+)[^\n=]*Check: (?P<a>\d+)(?P<op>[-+*/])(?P<b>\d+)=(?P<again>\d+), (?P<word>right|not)"
)


def count_checks(texts: list[str]) -> Counter[str]:
    """How often a step is checked, and what the check did to its result, by arithmetic.

    {"completions", "with_check", "checks", "corrected": wrong before and right after,
    "spoiled": right before and wrong after, "missed": wrong before and after}
    """
    found = [list(STEP_CHECK.finditer(text)) for text in texts]
    counts = Counter(completions=len(texts), with_check=sum(map(bool, found)))
    for match in (match for matches in found for match in matches):
        if (truth := _value(match["a"], match["op"], match["b"])) is not None:
            before, after = int(match["first"]) == truth, int(match["again"]) == truth
            counts["checks"] += 1
            counts["corrected"] += after and not before
            counts["spoiled"] += before and not after
            counts["missed"] += not before and not after
    return counts


QUESTION = re.compile(r"Make (\d+) out of the numbers (\d+(?:, \d+)*):")
# Two numbers: not the end of a longer expression, whose first part would be left out.
EQUATION = re.compile(
    r"(?<![\d.])(?<![\d)][-+*/])(?<![\d)][-+*/] )(?<![\d)] [-+*/] )(\d+) *([-+*/]) *(\d+) *= *(\d+)"
)
CHECKS = re.compile(r"\b(?:double-|re-?)?(?:check|verif)\w*", re.IGNORECASE)
WORDS = re.compile(
    r"\b(?:wait|hmm|aha|mistake|alternatively|(?:try|think) again|that(?: is|'s) not|let me (?:re-?)?check"
    r"|re-?(?:think|assess|evaluat|examin|consider|analyz|check)\w*|double-check)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reflection:
    """What stands in one completion of a Countdown problem."""

    hits: tuple[bool, ...]  # of each attempt: are its equations true, and do they make the target?
    checks: bool  # it says check or verify
    words: bool  # it says wait, hmm, let me check, that is not, try again, reconsider, or the like
    right: bool  # the answer

    @property
    def backtracks(self) -> bool:
        """Whether another attempt follows one that failed."""
        return not all(self.hits[:-1])

    @property
    def change(self) -> str:
        """ "rescued": it went back after a first attempt that failed, and the answer is right; "spoiled": the
        first attempt was right, the answer is wrong; else "".
        """
        if not self.hits or self.hits[0] == self.right:
            return ""
        if not self.right:
            return "spoiled"
        return "rescued" if self.backtracks else ""  # without another attempt only the answer was


def read_reflection(text: str, question: str, layout: Layout = THINK) -> Reflection:
    """Read a completion. An attempt is the equations of one sentence or line of the reasoning, as
    ``8*3=24, 24+1=25``; what follows a word of checking or reflection in it is none. A next sentence that
    takes up the last result belongs to it. Expressions of three numbers or more are not read.

    `question` holds the problem as r1nb.tasks.sources words it; UserError for any other.
    """
    if not (asked := QUESTION.search(question)):
        raise UserError(f"No Countdown problem: {question[-80:]!r} does not say which numbers make what.")
    target, nums = int(asked[1]), [int(number) for number in asked[2].split(", ")]
    reasoning = text.partition(layout.tags[1])[0].translate(SIGNS)
    attempts, goes_on = [], False
    for sentence in re.split(r"\n|\.(?=\s)", reasoning):
        starts = [found.start() for pattern in (CHECKS, WORDS) if (found := pattern.search(sentence))]
        if equations := EQUATION.findall(sentence[: min(starts, default=None)]):
            if goes_on and attempts[-1][-1][-1] in equations[0][:3]:
                attempts[-1] += equations
            else:
                attempts.append(equations)
            goes_on = not starts and int(equations[-1][-1]) not in nums
    hits = [_hits(equations, nums, target) for equations in attempts]
    score = countdown_reward_func.bind(layout=layout).score(text, str(target), nums=nums, target=target)
    checks, words = (bool(pattern.search(reasoning)) for pattern in (CHECKS, WORDS))
    return Reflection(tuple(hits), checks, words, right=score == 1.0)


def rescue_rates(groups: list[list], layout: Layout = THINK) -> tuple[int, float, float]:
    """Whether going back is better than guessing again: (n, rescued, guessed) of sampled groups of answers.

    n answers went back after a first attempt that failed. `rescued` is the share of them that is right,
    `guessed` how likely one of as many new first attempts would be: pass@k over the first attempts of the
    problem's other samples, k being the attempts after the first.
    """
    rescued, guessed = [], []
    for group in groups:
        read = [read_reflection(g.completion, g.question, layout) for g in group]
        firsts = [any(r.hits[:1]) for r in read]
        for r in read:
            if r.backtracks and not r.hits[0]:
                rescued.append(r.right)
                others = len(read) - 1
                guessed.append(pass_at_k(others, sum(firsts), min(len(r.hits) - 1, others)))
    n = len(rescued)
    return n, sum(rescued) / max(1, n), sum(guessed) / max(1, n)


def _hits(equations: list[tuple], nums: list[int], target: int) -> bool:
    """Whether the equations are true, use each number once, and end in the target."""
    left = Counter(nums)
    for a, op, b, result in equations:
        left.subtract([int(a), int(b)])
        if min(left.values()) < 0 or _value(a, op, b) != int(result):
            return False
        left[int(result)] += 1
    return +left == Counter([target])


def _value(a: str, op: str, b: str) -> Fraction | None:
    """The value of one step, exactly; None for a division by zero."""
    value = evaluate_expression(f"{a}{op}{b}")
    return value and value[0]
