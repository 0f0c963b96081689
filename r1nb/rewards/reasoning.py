"""Rewards for the reasoning: do its equations hold, is it in one language, is it too long?"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from r1nb.errors import UserError
from r1nb.rewards.registry import reward
from r1nb.text.arithmetic import evaluate_expression
from r1nb.text.numbers import to_number
from r1nb.text.prompts import REASONING

PERCENT = re.compile(r"(?<=\d)(?:\.\.\.|…)?\s?(?:\\?%|per ?cent\b)")  # 33%, 33 %, 33\%, 33 percent
NUMBER = r"\(*\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)%?\)*"
UNIT = r"(?:\s+[A-Za-z/]{2,20}){0,2}"  # 5 boxes * 12 pens/box = 60 pens
SIGN = r"\s*[-+*/×÷x–−]\s*"  # noqa: RUF001
LEFT = re.compile(rf"(?P<sum>{NUMBER}(?:{UNIT}{SIGN}{NUMBER})+){UNIT}\s*\Z", re.ASCII)
# If MIDDLE matches before an equation, the equation began earlier. END matches where its result is complete.
MIDDLE = re.compile(rf"(?:[\w.)^√²³]|\d\s|\d%\s?|mod\s|\d[:,]|\S{SIGN})\Z", re.ASCII)
END = rf"(?!,?\d|\s\d|\(|\s*%|\s+mod\b|\^|\s?[²³¼-¾⅐-⅞]|{SIGN}[\d.(])(?![\w.:]\w)"
REMAINDER = (  # 3 remainder 2, 3 R2, 3 boxes with a remainder of 2, 3 with 2 pens left over
    r"(?:(?:[\s,;(]+(?!(?:no|of|without|zero)\b)[A-Za-z/]+){0,4}?"
    r"[\s,;(]+(?i:remainder|rem\b\.?)(?:\s+(?:of|is)\b)?\s*[:=]?|\s*\(?[rR]\.?(?=\s*\d)"
    rf"|{UNIT},? with(?=\s+{NUMBER}{UNIT}\s+(?:left|remain)))"
)
REST = rf"(?:{REMAINDER}\s*(?P<rest>{NUMBER})|(?!{REMAINDER}|(?<!%)\s*and \d))"
RIGHT = re.compile(rf"\s*(?P<sum>-?{NUMBER}(?:{SIGN}{NUMBER})*){REST}{END}", re.ASCII)
EQUALS = re.compile("(?<!remainder)(?<!remainder )=", re.IGNORECASE)  # not the one in "remainder = 2"
WIDTH = 120  # characters on either side of an equals sign that may belong to its equation

# The script of each language: the first word of its characters' Unicode names.
LATIN = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "vi", "id")
SCRIPTS = {language: {"LATIN"} for language in LATIN} | {
    "zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}, "ko": {"HANGUL"},
    "ru": {"CYRILLIC"}, "uk": {"CYRILLIC"}, "el": {"GREEK"}, "ar": {"ARABIC"}, "he": {"HEBREW"},
    "hi": {"DEVANAGARI"},
}  # fmt: skip


def find_equations(text: str) -> list[tuple[str, tuple[Fraction, ...], bool]]:
    """Find each equation `a op b = c` in a text: (the equation as written, its results, whether it holds).

    c may be rounded to the decimals that it shows, and a percentage also to a whole one: 1/3 = 33%. Units of
    one or two words may follow a number. A division may have a remainder: 17 / 5 = 3 remainder 2. The results
    are the numbers that an answer may take from the equation: c (33 as well as 33%) and the remainder.
    """
    found, pieces = [], EQUALS.split(PERCENT.sub("%", text))
    for left, right in pairwise(pieces):
        line = left[-WIDTH:].rpartition("\n")[2]
        a, b = LEFT.search(line), RIGHT.match(right[:WIDTH].partition("\n")[0])
        if not a or not b or MIDDLE.search(line[: a.start()]):
            continue
        minus = "-" if line[: a.start()].endswith("-") else ""
        value, result, rest = _value(minus + a["sum"]), _value(b["sum"]), _value(b["rest"] or "")
        if value is None or result is None:
            continue
        decimals = len(b["sum"].rstrip(")%").partition(".")[2])
        half = Fraction(1, 2 * 10**decimals)  # half a unit of the last digit
        if rest is not None:
            results, holds = (result, rest), _divides(a["sum"], value, result, rest)
        elif b["sum"].rstrip(")").endswith("%"):  # 75% is .75, or 75; 1/3 and 1/3 * 100 are about 33%
            results, near = (result, 100 * result), half if decimals or "100" in a["sum"] else 0
            holds = abs(value - result) <= half / 100 or abs(value - 100 * result) <= near
        else:
            results, holds = (result,), abs(value - result) <= (half if decimals else 0)
        found.append((f"{a['sum']} = {b[0].strip()}", results, holds))
    return found


def _divides(division: str, value: Fraction, quotient: Fraction, rest: Fraction) -> bool:
    """Whether a division of this value has this whole quotient and this remainder."""
    divisors = [_value(division[sign.end() :]) for sign in re.finditer("[/÷]", division)]
    exact = any(d and rest < d and value == quotient + rest / d for d in divisors)
    return exact and quotient.denominator == 1


def _value(text: str) -> Fraction | None:
    text = re.sub(r"[A-Za-z/]*[A-Za-z]{2}[A-Za-z/]*|[$,]", "", text).replace("x", "*")  # remove units
    text = re.sub(r"([\d.]+)%", r"(\1/100)", text)
    surplus = text.count("(") - text.count(")")  # a parenthesis that belongs to the prose
    text = text.removeprefix("(" * surplus).removesuffix(")" * -surplus)
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    evaluated = evaluate_expression(f"0{text}" if text.startswith("-") else text)
    return evaluated[0] if evaluated else None


@reward(high=1.0)
def steps_reward_func(text: str, answer: str, layout=REASONING):
    """The share of equations in the reasoning that hold, if the answer is a result of the last equation.

    0.0 if there is no equation, or if the answer is not a result of the last one.
    """
    parsed = layout.parse(text)
    if not parsed:
        return 0.0, f"no steps to read: {layout.why_unreadable(text)}"
    equations = find_equations(parsed.reasoning)
    if not equations:
        return 0.0, "no equation in the reasoning"
    written, results, _ = equations[-1]
    answer = PERCENT.sub("%", parsed.answer.strip())
    given = to_number(answer)
    given = _value(answer) if given is None else Fraction(given)
    if given not in results and not written.endswith(f"= {answer}"):
        return 0.0, f"the answer does not follow from the last step, {written[:60]}"
    wrong = [written for written, _, holds in equations if not holds]
    reason = f"{len(equations) - len(wrong)} of {len(equations)} steps hold"
    return 1 - len(wrong) / len(equations), reason + (f"; {wrong[0][:60]} does not" if wrong else "")


@reward(high=1.0)
def language_reward_func(text: str, answer: str, language="en", layout=REASONING):
    """The share of words in the target language (arXiv 2501.12948v1, section 2.3.2), by their script.

    A word counts if it is in the language's script; each Chinese character is a word. So this reward tells
    English from Chinese, which R1 mixed, but not English from French.
    """
    if language not in SCRIPTS:
        raise UserError(f"language = {language!r} is unknown: use one of {', '.join(sorted(SCRIPTS))}.")
    parsed = layout.parse(text)
    read = parsed.reasoning if parsed else re.sub("|".join(layout.tags), " ", text)
    words = [word for word in re.findall(r"[^\W\d_]+", read) if word[0].isalpha()]  # not ² or ½
    # Each ideograph is a word; any other word is in the script of its first letter.
    marks = [mark for word in words for mark in ([_script(c) for c in word] if _script(word[0]) == "CJK"
             else [_script(word[0])])]  # fmt: skip
    if not marks:
        return 0.0, "no words"
    fitting = sum(mark in SCRIPTS[language] for mark in marks)
    return fitting / len(marks), f"{fitting} of {len(marks)} words in the script of {language!r}"


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").partition(" ")[0].replace("IDEOGRAPHIC", "CJK")  # 々


@reward(high=0.0, low=-1.0)
def overlong_reward_func(text: str, answer: str, completion_ids, max_completion_length, overlong_cache):
    """DAPO's length penalty (arXiv 2503.14476, equation 13), computed by TRL: from 0 down to -1.0.

    The penalty grows over the last `overlong_cache` tokens before max_completion_length.
    """
    from trl.rewards import get_soft_overlong_punishment

    (score,) = get_soft_overlong_punishment(max_completion_length, overlong_cache)([completion_ids])
    return score, f"{len(completion_ids)} of at most {max_completion_length} tokens"
