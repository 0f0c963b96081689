"""Reading numbers from text, and whether two answers are the same."""

from decimal import Decimal

import pytest

from r1nb.text.numbers import is_integer, last_number, same_answer, to_number

NUMBERS = {
    "72": "72",
    " 72\n": "72",
    "072": "72",
    "-5": "-5",
    "\N{MINUS SIGN}5": "-5",
    "\N{EN DASH}5": "-5",
    "\N{EM DASH}5": "-5",
    "\N{NON-BREAKING HYPHEN}5": "-5",
    "-$5": "-5",
    "$-5": "-5",
    "$72": "72",
    "\N{EURO SIGN}72": "72",
    "72.": "72",
    "72.0": "72",
    "72.5.": "72.5",
    ".5": "0.5",
    "1,080": "1080",
    "$1,080.00": "1080",
    "12,345,678.9": "12345678.9",
    "50%": "50",
    "50 %": "50",
    "18 eggs": "18",
    "72 dollars.": "72",
    "5 km/h": "5",
    "3 m\N{SUPERSCRIPT TWO}": "3",
}
NO_NUMBERS = [
    "",
    " \n",
    "-",
    "--5",
    "-$-5",
    "five",
    "eggs 18",
    "1,00",
    "1000,000",
    "1 000",
    "1.2.3",
    "5:30",
    "1/2",
    "2+3",
    "41 or 42",
    "41 eggs or 42",
    "41-42",
    "41 to 42",
    "41 or more",
    "72\n73",
    "NaN",
    "Infinity",
    "1e9",
    "1e999999999",
    "0x10",
    "1_000",
    "\N{SUPERSCRIPT TWO}",
    "7\N{SUPERSCRIPT TWO}",
    "5\N{VULGAR FRACTION ONE HALF}",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "7\N{ARABIC-INDIC DIGIT THREE}",
    "\N{FULLWIDTH DIGIT SEVEN}",
    "9" * 200_000,
    "1" + ",000" * 50_000,
    "5 " + "very " * 40_000 + "big eggs",
]
NO_INTEGERS = ["", "-", "72.0", "72.", "$72", "18 eggs", "50%", "1,00", "7 2", "+-5", "1e3"]
NO_INTEGERS += ["7\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "9" * 200_000]


@pytest.mark.parametrize(("text", "number"), NUMBERS.items(), ids=ascii)
def test_to_number_reads_a_number(text, number):
    assert to_number(text) == Decimal(number)


@pytest.mark.parametrize("text", NO_NUMBERS, ids=lambda text: ascii(text[:20]))
def test_to_number_refuses_other_text(text):
    assert to_number(text) is None


@pytest.mark.parametrize("text", ["72", " 72\n", "-5", "\N{MINUS SIGN}5", "0", "1,080"], ids=ascii)
def test_is_integer_accepts(text):
    assert is_integer(text)


@pytest.mark.parametrize("text", NO_INTEGERS, ids=lambda text: ascii(text[:20]))
def test_is_integer_refuses(text):
    assert not is_integer(text)


@pytest.mark.parametrize(
    ("given", "gold", "same"),
    [
        ("1080", "1,080", True),
        ("$1,080.00", "1080", True),
        ("18 eggs", "18", True),
        ("0", "-0", True),
        ("5", "-5", False),
        ("73", "72", False),
        ("71.9999", "72", False),
        ("41 or 42", "42", False),
        ("", "0", False),
        ("", "", False),
        (" ", " ", False),
        ("New  York\n", "new york", True),
        ("York", "New York", False),
        ("NaN", "NaN", True),  # text, not a number
        ("NaN", "72", False),
    ],
)
def test_same_answer(given, gold, same):
    assert same_answer(given, gold) is same


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3, then 72 eggs.", "72"),
        ("it costs $1,080.50.", "1080.50"),
        ("x = -5", "-5"),
        ("x = \N{MINUS SIGN}5", "-5"),
        ("the debt is -$5 now", "-5"),
        ("5-3", "3"),
        ("from 10\N{EN DASH}15", "15"),
        ("one, 2,3", "3"),
        ("50%", "50"),
        ("<answer>72</answer>", "72"),
        ("the answer\N{EM DASH}72", "72"),  # a dash after a word is not a minus sign
        ("COVID-19", "19"),
        ("the answer is ...72", "72"),
        ("it is .5", "0.5"),
    ],
)
def test_last_number(text, number):
    assert to_number(last_number(text) or "") == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT TWO}"])
def test_a_text_without_a_number_has_no_last_number(text):
    assert last_number(text) is None


SCALED = """5π, 5i, 5k, 5 pi, 5 dozen, 5 tens, 5 hundreds, 5 thousand, 5 trillion, 5 quadrillions, 5 bn
5 squared, 5 over two, 1 half, 2 halves, 3 quarters, 1 quarter, 1 third, 2 thirds, 4 fifths, 9 tenths
5 hundredth, 5 hundredths, -5 hundredths, 5 hundredths., 5 Hundredths, 7 thousandths, 3 millionths
5 eleventh, 5 twelfths, 3 sixteenths, 7 nineteenths, 1 twentieth, 3 sixtieths, 2 twenty-fifths
5 thirty-seconds, 5 ten-thousandths, 5 hundredths of a second, 5 hundredth of it, 1 third cup
1 Eighth mile, 5 meters and 2 thirds"""
UNITS = """18 eggs, 5 months, 3 seconds, 1 second, 3 seconds left, 12 hours, 3 meters, 1 month, 2 tents
20 third graders, 12 fifth-grade students, 3 tenth floor rooms, 10 math books, 5 lengths, 4 brothers, 5 bones
7 booths, 20 twenty-second ads, 5 halflings, 4 pillows, 6 quarterbacks"""


def listed(text):
    return [item for line in text.splitlines() for item in line.split(", ")]


@pytest.mark.parametrize("text", listed(SCALED))
def test_a_word_that_changes_the_number_is_not_a_unit(text):
    assert to_number(text) is None


@pytest.mark.parametrize("text", listed(UNITS))
def test_a_word_that_only_looks_like_a_fraction_is_a_unit(text):
    assert to_number(text) == int(text.split()[0])
