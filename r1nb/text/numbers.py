"""Text to number, and when two answers are the same: used by reward and evaluation alike."""

import re
from decimal import Decimal

MINUS = str.maketrans(dict.fromkeys("‐‑‒–—―−⁻﹣－", "-"))  # noqa: RUF001
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
CURRENCY = "[$€£¥]"
NUMBER = re.compile(
    rf"(-?){CURRENCY}?\s*(-?)({DIGITS}(?:\.[0-9]+)?|\.[0-9]+)\.?"  # $-5, -$5, 1,080.50, .5, 72.
    rf"\s*(?:%|°|{CURRENCY})?\s*([^\d,;=]*)"  # a unit in words: 18 eggs, 5 km/h
)
NO_UNIT = re.compile(  # "41 or more", "5 million" and "10 minus two" are not 41, 5 and 10
    r"\b(?:or|and|to|e|x|is|not|minus|plus|times|out|dozen|k|i|pi|π"
    r"|squared|cubed|factorial|point|divided|over|mod|less|remainder|hundreds?|thousands?|[mbtr]+illions?"
    r"|(?:hal[fv]e?|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|\w+teenth|\w+tieth|hundredth|thousandth|[mbtr]+illionth)s?)\b",  # nor is "5 hundredths" 5
    re.IGNORECASE,
)
LAST = re.compile(rf"(?:(?<!\w)-)?{CURRENCY}?(?:{DIGITS}(?:\.[0-9]+)?|(?<![.\w])\.[0-9]+)")
LONGEST = 100  # characters; an answer longer than this is prose, not a number


def to_number(text: str) -> Decimal | None:
    """The number that a whole text stands for, or None.

    Allowed around the ASCII digits: a currency sign, a sign, thousands commas, a trailing point,
    %, a unit in words. "41 or 42", "1e9", "NaN" and very long texts are no number.
    """
    text = text.strip().translate(MINUS)
    if len(text) > LONGEST or not (match := NUMBER.fullmatch(text)):
        return None
    before, after, digits, unit = match.groups()
    if (before and after) or (unit and not unit[0].isalpha()) or NO_UNIT.search(unit):
        return None
    return Decimal(before + after + digits.replace(",", ""))


def is_integer(text: str) -> bool:
    """Whether a text is an integer and nothing else: 72, -5, 1,080; not 72.0, 18 eggs or ²."""
    text = text.strip().translate(MINUS)
    return len(text) <= LONGEST and re.fullmatch(f"-?{DIGITS}", text) is not None


def same_answer(given: str, gold: str) -> bool:
    """Equal as numbers; where the gold is no number, equal as text but for case and spaces."""
    given = given.strip().removeprefix("**").removesuffix("**")  # bold, in Markdown
    number = to_number(gold)
    if number is not None:
        return to_number(given) == number
    return bool(gold.strip()) and given.casefold().split() == gold.casefold().split()


def last_number(text: str) -> str | None:
    """The last number anywhere in a text, for lenient grading: the field's usual extraction."""
    matches = list(LAST.finditer(text.translate(MINUS)))
    return matches[-1].group() if matches else None
