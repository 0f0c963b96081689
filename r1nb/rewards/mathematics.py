"""Decide with math-verify whether two answers mean the same: fractions, units, LaTeX, sets and intervals."""

import math
import re
from decimal import localcontext
from unicodedata import normalize

from r1nb.rewards.registry import reward
from r1nb.rewards.sandbox import run_sandboxed
from r1nb.text.numbers import MIXED, is_unit, same_answer, same_value, spell_out, to_value

SECONDS = 5  # for one comparison
LONGEST = 1_000  # characters of an answer
DIGITS = 5  # from the first that is not 0: so many must be equal, however small two numbers are
PERCENT = re.compile(r"%|\bpercent\b|\bpct\b", re.IGNORECASE)
TEXT = re.compile(r"\\(?:text\w*|mathrm|mathbf|mbox)\{([^{}]*)\}")
EQUALS = re.compile(r"(?<![<>!:=])=(?!=)")
RELATION = re.compile(r"[<>≤≥∈]|\\(?:leq?|geq?|lt|gt|in)(?![a-z])")
UNIT = re.compile(r"(.*?(?:[0-9)}\]π]|\\pi))((?=[^\W\d_]{2}| +[^\W\d_]).*?)(?: *\^\{?[23]\}?)?")
COMMAND = re.compile(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+")
NAMED = re.compile(
    r"(^|,)\s*(?:[a-zA-Z](?:_\{?\w+\}?|\^\{-1\})?(?:\([\w, ]+\))?|\\[a-z]+)?\s*=\s*(?=[^=,]+(?:,|$))"
)
FUNCTIONS = "arc(?:sin|cos|tan)|sinh?|cosh?|tanh?|cot|sec|csc|log|ln|exp|sqrt|pi|min|max|gcd|lcm|mod|inf"
NAME = re.compile(  # a word, and not a function or a product of letters such as xy; or 2+2=5
    rf"(?<![a-zA-Z])(?!(?:{FUNCTIONS})\b)(?:[^\W\d_]{{4,}}"
    r"|(?<!.)\s*[^\W\d_]{2,}\s*(?!.)|(?<=[\w)}] )[a-zA-Z]{2,3}(?![a-zA-Z])|[a-zA-Z]{2,3}(?= +[\w(])"
    r"|(?<=[0-9] )[a-zA-Z](?= +[0-9])|^[^a-zA-Z=]*[0-9][^a-zA-Z=]*=[^a-zA-Z]*$)"
)
TEXTUAL = re.compile(  # marks that math-verify ignores; times, ratios, bases, dates, ranges, several lines
    r"\\(?:neq?|not|approx|sim(?:eq)?|equiv|neg|lnot|to|p?mod|phantom|cancel|bar|overline|hat|vec|dot)(?![a-z])"
    r"|[≠≈∓¬→]|!=|:=|==|^\s*(?:[<>≤≥*/^_!]|\\(?:leq?|geq?|lt|gt)(?![a-z]))|[0-9]\s*:\s*[0-9]|[0-9]_"
    r"|(?<![_0-9])[0-9]+\s+[0-9](?!\s*/)|^[0-9]+(?:[-/][0-9]+){2,}$|^[0-9]+-[0-9]+$"
    r"|^(?!.*\\begin)[\s\S]*(?:\n|\\\\)"
)
WRAPPED = re.compile(  # in Markdown's or LaTeX's marks: **5**, $5$, \(5\), \boxed{5}
    r"(\*{1,3}|_{1,3}|`|\$\$?)(?P<a>(?:(?!\1).)+)\1|\\\((?P<b>(?:(?!\\\)).)+)\\\)|\\\[(?P<c>(?:(?!\\\]).)+)\\\]"
    r"|\\(?:boxed|textbf|mathbf|text|mathrm)\{(?P<d>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+)\}",
    re.DOTALL,
)


def math_equal(given: str, gold: str, seconds: float = SECONDS) -> bool | None:
    """Whether two answers, as text or LaTeX, mean the same; None if the comparison took too long."""
    if len(given) > LONGEST or len(gold) > LONGEST:
        return False
    percents = [PERCENT.search(answer) is not None for answer in (given, gold)]
    given, gold = rewrite(given), rewrite(gold)
    one, other = to_value(given), to_value(gold)
    if one is not None and other is not None:
        if same_value(one, other) or percents[0] == percents[1]:
            return same_value(one, other)
        part, whole = (one, other) if percents[0] else (other, one)
        with localcontext(prec=LONGEST):  # so that a long decimal is not rounded
            return same_value(part / 100, whole)
    if is_text(given) or is_text(gold):
        return _letters(given) == _letters(gold) != ""
    if bool(EQUALS.search(given)) != bool(EQUALS.search(gold)):  # x = 5 is 5, but 2x = 10 is not 10
        given, gold = NAMED.sub(r"\1", given), NAMED.sub(r"\1", gold)
        if EQUALS.search(given + gold):
            return False
    if not (RELATION.search(given + gold) or _items(given) & _items(gold)):
        return False
    latex = [MIXED.sub(r"(\g<whole>+\g<part>)", answer) for answer in (given, gold)]
    return run_sandboxed("r1nb.rewards.mathematics:compare", "math_verify", *latex, seconds=seconds)


def rewrite(answer: str) -> str:
    r"""An answer as plain LaTeX, without marks around it and without a unit: √2 \text{ m} is \sqrt{2}."""
    answer = TEXT.sub(r" \1 ", unwrap(answer))
    answer = re.sub("(?<=[a-zA-Zπ)])[⁰¹²³⁴-⁹]+", lambda m: f"^{{{normalize('NFKC', m[0])}}}", answer)
    answer = re.sub(r"√\s*([0-9]+|\w|\([^()]*\))", r"\\sqrt{\1}", answer).replace("∞", r"\infty ")
    answer = re.sub(r"\\[$]|(?<!\\)\\ |~", " ", spell_out(answer)).strip()
    answer = re.sub(r"(?<=[\w)}\]]) +(?:or|and) +(?=[-+\\(]*\w)", ", ", answer)
    answer = re.sub(r"(?<![\w.,])[0-9]{1,3}(?: [0-9]{3})+(?![\w,])", lambda m: m[0].replace(" ", ""), answer)
    answer = re.sub(r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\{?([0-9]+)\}?", _repeating, answer)
    unit = UNIT.fullmatch(answer)
    return unit[1] if unit and not is_text(unit[1]) and is_unit(unit[2]) else answer


def _repeating(match: re.Match) -> str:
    whole, first, again = match.groups()
    bottom = (10 ** len(again) - 1) * 10 ** len(first)
    return rf"\frac{{{int(whole + first + again) - int(whole + first or 0)}}}{{{bottom}}}"


def is_text(answer: str) -> bool:
    """Whether math-verify would misread an answer: it multiplies the letters of words, and divides times."""
    return bool(TEXTUAL.search(answer) or NAME.search(COMMAND.sub(" ", answer)))


def _letters(answer: str) -> str:
    """A text without case, spaces, braces and the full stop at its end, to compare it with others."""
    answer = re.sub(r"[{}$]|\.(?!\d)|\s+(?=\W|$)|(?<=\W)\s+", "", answer.casefold().strip())
    return re.sub(r"^\((\w+)\)$", r"\1", answer)


def _items(answer: str) -> set[int]:
    """The numbers of commas in an answer, with and without those between thousands."""
    commas = answer.count(",") + answer.count(";")
    return {commas, commas - len(re.findall(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", answer))}


def unwrap(answer: str) -> str:
    """An answer without a full stop at its end and without the marks around it."""
    answer = re.sub(r"(?<=[0-9}*_`$)\]])\.$", "", answer.strip())
    while match := WRAPPED.fullmatch(answer):
        answer = next(filter(None, match.group(*"abcd"))).strip()
    return answer


def readable(gold: str) -> bool:
    """Whether a gold is a number or a text, or math-verify can read it."""
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
