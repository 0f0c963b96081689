"""Rewards for how a completion reasons: do its steps hold, is it in one language, is it too long."""

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

NUMBER = r"\(*\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)%?\)*"
UNIT = r"(?:\s+[A-Za-z/]{2,20}){0,2}"  # 5 boxes * 12 pens/box = 60 pens
SIGN = r"\s*[-+*/×÷x–−]\s*"  # noqa: RUF001
LEFT = re.compile(rf"(?P<sum>{NUMBER}(?:{UNIT}{SIGN}{NUMBER})+){UNIT}\s*\Z", re.ASCII)
MIDDLE = re.compile(rf"(?:[\w.)^√²³]|\d\s|\d[:,]|\S{SIGN})\Z", re.ASCII)  # what begins there began earlier
END = rf"(?!,?\d|\s\d|\s*and \d|\(|[\^²³]|{SIGN}[\d.(])(?![\w.:]\w)"  # what ends there does not go on
RIGHT = re.compile(rf"\s*(?P<sum>-?{NUMBER}(?:{SIGN}{NUMBER})*){END}", re.ASCII)
WIDTH = 120  # characters on either side of an equals sign that may belong to its equation

# How a language is written, by the first word of its characters' names in Unicode.
LATIN = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "vi", "id")
SCRIPTS = {language: {"LATIN"} for language in LATIN} | {
    "zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}, "ko": {"HANGUL"},
    "ru": {"CYRILLIC"}, "uk": {"CYRILLIC"}, "el": {"GREEK"}, "ar": {"ARABIC"}, "he": {"HEBREW"},
    "hi": {"DEVANAGARI"},
}  # fmt: skip


def find_equations(text: str) -> list[tuple[str, Fraction, bool]]:
    """Every `a op b = c` in a text: (as written, c, whether it holds).

    c may be rounded to the decimals that it has. Units of one or two words may follow a number.
    """
    found, pieces = [], text.split("=")
    for left, right in pairwise(pieces):
        line = left[-WIDTH:].rpartition("\n")[2]
        a, b = LEFT.search(line), RIGHT.match(right[:WIDTH].partition("\n")[0])
        if not a or not b or MIDDLE.search(line[: a.start()]):
            continue
        minus = "-" if line[: a.start()].endswith("-") else ""
        value, result = _value(minus + a["sum"]), _value(b["sum"])
        if value is None or result is None:
            continue
        decimals = len(b["sum"].rstrip(")%").partition(".")[2])
        tolerance = Fraction(1, 2 * 10**decimals) if decimals else 0
        shares = (1, 100) if b["sum"].endswith("%") else (1,)  # 75% is .75, or 75
        holds = any(abs(value - result * n) <= tolerance * n / shares[-1] for n in shares)
        found.append((f"{a['sum']} = {b['sum']}", result, holds))
    return found


def _value(text: str) -> Fraction | None:
    text = re.sub(r"[A-Za-z/]*[A-Za-z]{2}[A-Za-z/]*|[$,]", "", text).replace("x", "*")  # no units
    text = re.sub(r"([\d.]+)%", r"(\1/100)", text)
    surplus = text.count("(") - text.count(")")  # a parenthesis that belongs to the prose
    while surplus > 0 and text.startswith("("):
        text, surplus = text[1:], surplus - 1
    while surplus < 0 and text.endswith(")"):
        text, surplus = text[:-1], surplus + 1
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    evaluated = evaluate_expression(f"0{text}" if text.startswith("-") else text)
    return evaluated[0] if evaluated else None


@reward(high=1.0)
def steps_reward_func(text: str, answer: str, layout=REASONING):
    """The share of equations in the reasoning that hold, if the answer is the result of the last one.

    0.0 without an equation, and where the answer does not follow.
    """
    parsed = layout.parse(text)
    if not parsed:
        return 0.0, f"no steps to read: {layout.why_unreadable(text)}"
    equations = find_equations(parsed.reasoning)
    if not equations:
        return 0.0, "no equation in the reasoning"
    given = to_number(parsed.answer)
    given = _value(parsed.answer.strip()) if given is None else Fraction(given)
    last, result, _ = equations[-1]
    if given is None or given not in (result, 100 * result if last.endswith("%") else result):
        return 0.0, f"the answer does not follow from the last step, {equations[-1][0][:60]}"
    wrong = [written for written, _, holds in equations if not holds]
    reason = f"{len(equations) - len(wrong)} of {len(equations)} steps hold"
    return 1 - len(wrong) / len(equations), reason + (f"; {wrong[0][:60]} does not" if wrong else "")


@reward(high=1.0)
def language_reward_func(text: str, answer: str, language="en", layout=REASONING):
    """The share of words in the target language (arXiv 2501.12948v1, section 2.3.2), by their script.

    A word counts if its letters are of the language's script, a Chinese character as one word. So
    it tells English from Chinese, the mixture that R1 showed, but not English from French.
    """
    if language not in SCRIPTS:
        raise UserError(f"language = {language!r}: known are {', '.join(sorted(SCRIPTS))}.")
    parsed = layout.parse(text)
    read = parsed.reasoning if parsed else re.sub("|".join(layout.tags), " ", text)
    words = [word for word in re.findall(r"[^\W\d_]+", read) if word[0].isalpha()]  # not ² or ½
    # Each ideograph is a word; elsewhere a word is of the script of its first letter.
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
    """DAPO's penalty for length (arXiv 2503.14476, equation 13), by TRL: 0 down to -1.0.

    It grows over the last `overlong_cache` tokens before max_completion_length.
    """
    from trl.rewards import get_soft_overlong_punishment

    (score,) = get_soft_overlong_punishment(max_completion_length, overlong_cache)([completion_ids])
    return score, f"{len(completion_ids)} of at most {max_completion_length} tokens"
