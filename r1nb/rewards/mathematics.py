"""Decide with math-verify whether two answers mean the same: fractions, units, LaTeX, sets and intervals."""

import math
import re
from decimal import localcontext

from r1nb.rewards.registry import reward
from r1nb.rewards.sandbox import run_sandboxed
from r1nb.text.numbers import MIXED, same_answer, same_value, spell_out, to_value

SECONDS = 5  # for one comparison
LONGEST = 1_000  # characters of an answer
DIGITS = 5  # from the first that is not 0: so many must be equal, however small two numbers are
PERCENT = re.compile(r"%|\bpercent|\bpct\b", re.IGNORECASE)
WRAPPED = re.compile(  # in Markdown's or LaTeX's marks: **5**, $5$, \(5\), \boxed{5}
    r"(\*{1,3}|_{1,3}|`|\$\$?)(?P<a>(?:(?!\1).)+)\1|\\\((?P<b>(?:(?!\\\)).)+)\\\)|\\\[(?P<c>(?:(?!\\\]).)+)\\\]"
    r"|\\(?:boxed|textbf|mathbf|text|mathrm)\{(?P<d>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+)\}",
    re.DOTALL,
)


def math_equal(given: str, gold: str, seconds: float = SECONDS) -> bool | None:
    """Whether two answers, as text or LaTeX, mean the same; None if the comparison took too long."""
    if len(given) > LONGEST or len(gold) > LONGEST:
        return False
    given, gold = unwrap(given), unwrap(gold)
    one, other = to_value(given), to_value(gold)
    if one is not None and other is not None:
        percents = [PERCENT.search(answer) is not None for answer in (given, gold)]
        if same_value(one, other) or percents[0] == percents[1]:
            return same_value(one, other)
        part, whole = (one, other) if percents[0] else (other, one)
        with localcontext(prec=LONGEST):  # so that a long decimal is not rounded
            return same_value(part / 100, whole)
    latex = [MIXED.sub(r"(\g<whole>+\g<part>)", spell_out(answer)) for answer in (given, gold)]
    return run_sandboxed("r1nb.rewards.mathematics:compare", "math_verify", *latex, seconds=seconds)


def unwrap(answer: str) -> str:
    """An answer without a full stop at its end and without the marks around it."""
    answer = re.sub(r"(?<=[0-9}*_`$)\]])\.$", "", answer.strip())
    while match := WRAPPED.fullmatch(answer):
        answer = next(filter(None, match.group(*"abcd"))).strip()
    return answer


def readable(gold: str) -> bool:
    """Whether a gold is a number or math-verify can read it."""
    return bool(math_equal(gold, gold))


def compare(given: str, gold: str) -> bool:
    """Whether math-verify finds two answers equal; runs in the sandbox, because it may never end."""
    from math_verify import parse, verify

    parsed = []
    for answer in (gold, given):
        parsed.append(parse(f"\\boxed{{{answer}}}", parsing_timeout=None, fallback_mode="no_fallback"))
    if not all(parsed):
        return False
    places = max(6, *(_places(found[0]) for found in parsed))
    return bool(verify(*parsed, places, places + 9, timeout_seconds=None))


def _places(parsed) -> int:
    """The decimal places that show DIGITS digits of each number in what math-verify parsed."""
    from sympy import Expr, log, preorder_traversal

    if isinstance(parsed, Expr) and parsed.is_number:
        numbers = [parsed]
    else:
        numbers = [part for part in preorder_traversal(parsed) if isinstance(part, Expr) and part.is_number]
    sizes = [size for number in numbers if (size := abs(number.evalf())).is_finite and size > 0]
    return max((DIGITS - 1 - math.floor(log(size, 10).evalf()) for size in sizes), default=6)


@reward(high=1.0, judges="answer", block=True, library="math_verify")
def math_reward_func(given: str, answer: str):
    r"""1.0 if the answer block means the same as the gold: 1/2, 0.5 and \boxed{\frac{1}{2}} are the same.

    Two numbers or fractions must be equal, except that 0.333333 is 1/3; math-verify compares other answers.
    It ignores units, degrees and the order of a set. 50% is both 50 and 0.5. A comparison that takes over 5
    seconds earns 0.0.
    """
    if same_answer(given, answer):
        return 1.0, f"{given[:40]} equals the gold {answer[:40]}"
    equal = math_equal(given, answer) if given else False
    if equal is None:
        return 0.0, f"the comparison took over {SECONDS} seconds"
    if equal:
        return 1.0, f"{given[:40]} means the same as the gold {answer[:40]}"
    return 0.0, f"{given[:40] or 'nothing'} does not mean the same as the gold {answer[:40]}"
