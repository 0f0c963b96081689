"""Count reflection and backtracking in completions, and check whether they changed the answer.

Words of reflection do not prove that the policy reconsiders anything: "superficial self-reflection" (arXiv
2503.20783, section 2.3) does not lead to a better answer. So for Countdown each attempt is evaluated, and the
first attempt is compared with the answer.
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
    """Count how often a step is checked, and whether the check made its result right or wrong.

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
# An operation on two numbers. It must not be the end of a longer expression, whose first part would be lost.
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
    """What was found in one completion of a Countdown problem."""

    hits: tuple[bool, ...]  # for each attempt: its equations are true and make the target
    checks: bool  # it says check or verify
    words: bool  # it says wait, hmm, let me check, that is not, try again, reconsider, or the like
    right: bool  # the answer is right

    @property
    def backtracks(self) -> bool:
        """Whether a failed attempt is followed by another attempt."""
        return not all(self.hits[:-1])

    @property
    def change(self) -> str:
        """ "rescued": the first attempt failed, another one followed, and the answer is right; "spoiled": the
        first attempt was right, but the answer is wrong; otherwise "".
        """
        if not self.hits or self.hits[0] == self.right:
            return ""
        if not self.right:
            return "spoiled"
        return "rescued" if self.backtracks else ""  # without a second attempt only the answer is right


def read_reflection(text: str, question: str, layout: Layout = THINK) -> Reflection:
    """Find the attempts and the words of reflection in a completion.

    An attempt is the equations of one sentence or line of the reasoning: ``8*3=24, 24+1=25``. Equations after
    a word of checking or reflection do not count. If the next sentence uses the last result, it belongs to
    the same attempt. Expressions of three or more numbers are not read. Raises UserError if `question` is not
    a Countdown problem in the wording of r1nb.tasks.sources.
    """
    if not (asked := QUESTION.search(question)):
        raise UserError(f"Not a Countdown problem: {question[-80:]!r} does not name numbers and a target.")
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
    """Compare backtracking with guessing again in groups of sampled answers; returns (n, rescued, guessed).

    n answers made another attempt after a failed first attempt; `rescued` is the share of these answers that
    is right. `guessed` is the probability that one of equally many new first attempts would be right: pass@k
    over the first attempts of the problem's other samples, where k is the number of attempts after the first.
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
