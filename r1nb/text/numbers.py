"""Read numbers from text and compare answers, for rewards and evaluation."""

import re
from decimal import Decimal

MINUS = str.maketrans(dict.fromkeys("‐‑‒–—―−⁻﹣－", "-"))  # noqa: RUF001
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
CURRENCY = "[$€£¥]"
NUMBER = re.compile(
    rf"(-?){CURRENCY}?\s*(-?)({DIGITS}(?:\.[0-9]+)?|\.[0-9]+)\.?"  # $-5, -$5, 1,080.50, .5, 72.
    rf"\s*(?:%|°|{CURRENCY})?\s*([^\d,;=]*)"  # a unit in words: 18 eggs, 5 km/h
)
PART = (  # a fraction: 2 thirds, 1 third cup, 5 hundredths; not 20 third graders, 3 seconds, 5 months
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w+teenth|\w+tieth"
    r"|hundredth|thousandth|\w+illionth|\w+ty-(?:first|second))"
)
NO_UNIT = re.compile(  # "41 or more", "5 million" and "10 minus two" are not 41, 5 and 10
    r"\b(?:or|and|to|e|x|is|not|minus|plus|times|out|tens|dozen|k|bn|i|pi|π"
    r"|squared|cubed|factorial|point|divided|over|mod|less|remainder|hundreds?|thousands?|\w+illions?"
    rf"|half|halves|quarters?|{PART}s|{PART}(?=\W*$|\s+of\b)|(?<=^1 ){PART})\b",
    re.IGNORECASE,
)
LAST = re.compile(rf"(?:(?<!\w)-)?{CURRENCY}?(?:{DIGITS}(?:\.[0-9]+)?|(?<![.\w])\.[0-9]+)")
LONGEST = 100  # characters; a longer answer is prose, not a number


def to_number(text: str) -> Decimal | None:
    """The number that the whole text states, or None if it does not state exactly one.

    Apart from ASCII digits, the text may have a sign, a currency symbol, commas between thousands, a full
    stop at the end, % and a unit in words. "41 or 42", "1e9", "NaN" and very long texts are not numbers.
    """
    text = text.strip().translate(MINUS)
    if len(text) > LONGEST or not (match := NUMBER.fullmatch(text)):
        return None
    before, after, digits, unit = match.groups()
    if (before and after) or (unit and not unit[0].isalpha()) or NO_UNIT.search(f"{digits} {unit}"):
        return None
    return Decimal(before + after + digits.replace(",", ""))


def is_integer(text: str) -> bool:
    """Whether a text is only an integer: true for 72, -5 and 1,080; false for 72.0, 18 eggs and ²."""
    text = text.strip().translate(MINUS)
    return len(text) <= LONGEST and re.fullmatch(f"-?{DIGITS}", text) is not None


def same_answer(given: str, gold: str) -> bool:
    """Whether two answers are equal: as numbers if the gold is a number, or else as text.

    The comparison of text ignores case and the amount of white space. An empty gold equals nothing.
    """
    given = given.strip().removeprefix("**").removesuffix("**")  # bold, in Markdown
    number = to_number(gold)
    if number is not None:
        return to_number(given) == number
    return bool(gold.strip()) and given.casefold().split() == gold.casefold().split()


def last_number(text: str) -> str | None:
    """The last number anywhere in a text, or None. Lenient grading takes it as the answer."""
    matches = list(LAST.finditer(text.translate(MINUS)))
    return matches[-1].group() if matches else None
