"""Reading numbers from text, and whether two answers are the same."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from r1nb.text.numbers import is_integer, last_number, same_answer, same_value, to_number, to_value

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
THOUSANDS = ["9{,}500", r"9\,500", r"9\ 500", r"9\!500", r"9,\!500", r"9\;500", r"9\thinspace 500", "9~500",
             "9'500", "9\N{RIGHT SINGLE QUOTATION MARK}500", "9\N{THIN SPACE}500",
             "9\N{NARROW NO-BREAK SPACE}500", "9\N{NO-BREAK SPACE}500", "9 {,} 500", "$9{,}500$",
             r"9\,500."]  # fmt: skip
NUMBERS |= dict.fromkeys(THOUSANDS, "9500")
NUMBERS |= {r"1\,080\,000.5": "1080000.5", r"-1{,}080": "-1080", "3{,}14": "3.14", "0{,}500": "0.5"}
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
        ("one, 2, 3", "3"),
        ("50%", "50"),
        ("<answer>72</answer>", "72"),
        ("the answer\N{EM DASH}72", "72"),  # a dash after a word is not a minus sign
        ("COVID-19", "19"),
        ("the answer is ...72", "72"),
        ("it is .5", "0.5"),
        ("The total is 72 clips, altogether.", "72"),
        ("It is 72, in total, so she earns that.", "72"),
        ("72,", "72"),
        ("It is -3, below zero,", "-3"),
        *((f"The profit is ${text}$, she says.", "9500") for text in THOUSANDS),
        ("it is 48/2=24", "24"),
        ("in 2020 500 people", "500"),
        ("1/2, then 3", "3"),
        ("x = - 5", "-5"),
        ("x = \N{MINUS SIGN} 5", "-5"),
        (r"it is -\$ 5", "-5"),
        ("it is -\N{INDIAN RUPEE SIGN}5", "-5"),
        ("it is -US$5", "-5"),
        ("Answer \N{EM DASH} 72", "72"),
        ("Answer:72", "72"),
        (r"so $\boxed{72}$!", "72"),
        ("=> 72", "72"),
        ("she has 72 T-shirts", "72"),
        ("the area is 5 m\N{SUPERSCRIPT TWO}", "5"),
    ],
)
def test_last_number(text, number):
    assert to_number(last_number(text) or "") == Decimal(number)


@pytest.mark.parametrize(
    "text", ["1/2", "2 2/3", r"2\frac{2}{3}", "2\N{VULGAR FRACTION ONE HALF}", "1e-7", "2^{10}",
             "7\N{SUPERSCRIPT TWO}", r"6.6 \times 10^{-34}", "9 500",
             "\N{VULGAR FRACTION ONE HALF}", r"\frac{\pi}{2}", r"\sqrt{2}", "\N{SQUARE ROOT}2", "x^2", "x/2",
             "1:2", "1 : 2", "2**10", r"\frac{-1}{2}", "12,34,567", "1.234,56", "1.000.000", "3,14", "1_000",
             "101_2", "0.(3)", r"0.\overline{3}", "5 million", "$1.5M", "5 lakh", "minus 2", "-(2)", "<5",
             "2^{x+1}", "12/5/2020"], ids=ascii,
)  # fmt: skip
def test_the_end_of_a_number_is_not_the_last_number(text):
    """A wrong gold that is only its end must not count as right."""
    assert to_number(last_number(f"So it is {text}.")) is None


@pytest.mark.parametrize("text", ["", "none", "#### ,", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT TWO}"])
def test_a_text_without_a_number_has_no_last_number(text):
    assert last_number(text) is None


SCALED = """5π, 5i, 5k, 5 pi, 5 dozen, 5 tens, 5 hundreds, 5 thousand, 5 trillion, 5 quadrillions, 5 bn
5 squared, 5 over two, 1 half, 2 halves, 3 quarters, 1 quarter, 1 third, 2 thirds, 4 fifths, 9 tenths
5 hundredth, 5 hundredths, -5 hundredths, 5 hundredths., 5 Hundredths, 7 thousandths, 3 millionths
5 eleventh, 5 twelfths, 3 sixteenths, 7 nineteenths, 1 twentieth, 3 sixtieths, 2 twenty-fifths
5 thirty-seconds, 5 ten-thousandths, 5 hundredths of a second, 5 hundredth of it, 1 third cup
1 Eighth mile, 5 meters and 2 thirds, 5M, 5B, $5M, $5m, 5ab, 5a, 5θ, 5x\N{SUPERSCRIPT TWO}, 5 lakh, 5 crore
5 grand, 5 dozens, 5 six, 5 hours thirty-five minutes, 5 wrong, 5 isn't, 5 eggs / two
5 eggs * two, 5 or six, 5 maybe ten, 5 in base six, 5 degrees below zero, 5 Tausend, 5 Millionen, 5 mil, 5万
3 pm, 5만, 5 тысяч, 5 log, 5 Äpfel und sechs, 5 one of the very many long sentences"""
UNITS = """18 eggs, 5 months, 3 seconds, 1 second, 3 seconds left, 12 hours, 3 meters, 1 month, 2 tents
20 third graders, 12 fifth-grade students, 3 tenth floor rooms, 10 math books, 5 lengths, 4 brothers, 5 bones
5 m, 5kg, 5m, 5 cm\N{SUPERSCRIPT TWO}, 5 sq. ft, 5 miles an hour, 5 eggs (total), 5元, 5 яблок
5 Äpfel, 5 children's books, 13 nine-year-olds, 5 dollars per hour, 5 more cookies, 5 USD, 5th
5 boxes of eggs, 5 T-shirts, 7 booths, 20 twenty-second ads, 5 halflings, 4 pillows, 6 quarterbacks"""


def listed(text):
    return [item for line in text.splitlines() for item in line.split(", ")]


@pytest.mark.parametrize("text", listed(SCALED))
def test_a_word_that_changes_the_number_is_not_a_unit(text):
    assert to_number(text) is None


@pytest.mark.parametrize("text", listed(UNITS))
def test_a_word_that_only_looks_like_a_fraction_is_a_unit(text):
    assert to_number(text) == int(re.match("[0-9]+", text)[0])


HALF, MINUS = "\N{VULGAR FRACTION ONE HALF}", "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1/2", "1/2"), ("2 2/3", "8/3"), (r"2\frac{2}{3}", "8/3"), (r"2 \dfrac23", "8/3"),
     ("-1 1/2", "-3/2"), (f"{MINUS}1 1/2", "-3/2"), (r"-1\frac{1}{2}", "-3/2"), (f"2{HALF}", "5/2"),
     (f"-{HALF}", "-1/2"), ("2~2/3", "8/3"), ("1e-7", "1e-7"), ("1.5E+3", "1500"), ("10^{-7}", "1e-7"),
     (r"6.6 \times 10^{-34}", "6.6e-34"), ("10^5", "1e5"), ("1,000/3", "1000/3"), ("+5", "5"),
     ("3\N{MULTIPLICATION SIGN}10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT SEVEN}", "3e-7"),
     (r"12\frac{1}{2}\%", "25/2"), ("2\N{FRACTION SLASH}3", "2/3")],
    ids=ascii,
)  # fmt: skip
def test_to_value_reads_fractions_and_powers(text, value):
    assert to_value(text) == Fraction(value)


@pytest.mark.parametrize(
    "text", ["1/0", "2 1/0", "1/2/3", "--1/2", "1/2 cup", "x", "1e99999", "2^3", "1.5 1/2", "1e"]
)
def test_to_value_refuses_other_text(text):
    assert to_value(text) is None


@pytest.mark.parametrize(
    ("decimal", "fraction", "same"),
    [("0.333333", "1/3", True), ("0.666667", "2/3", True), ("0.6666666", "2/3", True),
     ("-0.083333", "-1/12", True), ("0.333334", "1/3", False), ("0.3333", "1/3", False),
     ("0.1250001", "1/8", False), ("0.333333", "-1/3", False), ("0.000000", "1/3000000", False),
     ("0.0000003", "1/3000000", False)],
)  # fmt: skip
def test_a_fraction_may_be_rounded_to_six_places(decimal, fraction, same):
    assert same_value(Decimal(decimal), Fraction(fraction)) is same
    assert same_value(Fraction(fraction), Decimal(decimal)) is same


WHOLE, SPACES = st.integers(0, 99_999_999), st.sampled_from([" ", "~", r"\ ", r"\,", "\N{NO-BREAK SPACE}"])
SEPARATORS = st.sampled_from(["", ",", "{,}", r"\,", r"\!", r",\!", r"\ ", "~", "'", "\N{THIN SPACE}"])
SIGNS = st.sampled_from(["", "-", MINUS])
FRACTIONS = st.sampled_from(["{}/{}", r"\frac{{{}}}{{{}}}", r"\dfrac{{{}}}{{{}}}", "{} / {}"])
POWERS = st.sampled_from(["e{}", "E{}", r" \times 10^{{{}}}", r"\cdot 10^{{{}}}", " x 10^{}"])


@st.composite
def written(draw):
    """A number as people write it, and its value, made from its parts: (text, Fraction)."""
    sign, whole, top = draw(SIGNS), draw(WHOLE), draw(st.integers(1, 99))
    kind, bottom, size = draw(st.integers(0, 3)), draw(st.integers(2, 99)), draw(st.integers(-40, 40))
    digits, places = draw(st.integers(0, 9_999)), draw(st.integers(4, 6))
    text = f"{whole:,}".replace(",", draw(SEPARATORS))
    if kind == 0:
        value = Fraction(whole)
    elif kind == 1:
        text, value = f"{text}.{digits:0{places}}", whole + Fraction(digits, 10**places)
    elif kind == 2:
        text, value = draw(FRACTIONS).format(top, bottom), Fraction(top, bottom)
        if draw(st.booleans()):
            text, value = f"{whole % 1000}{draw(SPACES)}{text}", whole % 1000 + value
    else:
        text = f"{digits / 1000:.3f}{draw(POWERS).format(size)}"
        value = Fraction(digits, 1000) * Fraction(10) ** size
    return sign + text, -value if sign else value


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@any_of(written())
def test_a_number_is_read_in_any_notation(made):
    text, value = made
    assert to_value(text) == value, ascii(text)
    assert to_value(last_number(f"So 12 of them: {text}, or so, she says.")) == value, ascii(text)
    number = to_number(text)
    assert number is None or number == value, ascii(text)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@any_of(written(), written())
def test_only_equal_numbers_are_the_same(one, other):
    gold = other[0]
    same = same_answer(one[0], gold)
    assert not same or one[1] == other[1], ascii((one, other))
    assert same_value(to_value(one[0]), to_value(gold)) == (one[1] == other[1]), ascii((one, other))
