"""Whether two answers mean the same, decided by math-verify."""

import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from r1nb.rewards.mathematics import math_equal
from r1nb.rewards.registry import find_reward
from r1nb.text.prompts import REASONING

SAME = [(r"\frac{1}{2}", "0.5"), ("1/2", r"\frac12"), (r"\boxed{5}", "5"), ("$5$", "5"), ("x=5", "5"),
        (r"5 \text{ cm}", "5"), (r"90^\circ", "90"), (r"2\sqrt{3}", r"\sqrt{12}"), ("50%", r"\frac{1}{2}"),
        (r"\{1,2\}", r"\{2,1\}"), ("(x+1)^2", "x^2+2x+1"), ("1,080", "1080"), ("(1,2)", "(1, 2)"),
        ("yes, no", "Yes,  no"), ("2^{10}", "1024"), (r"\infty", r"+\infty"), ("33.3333%", "1/3"),
        ("2 2/3", "8/3"), ("-1 1/2", "-3/2"), (r"-1\frac{1}{2}", "-3/2"), ("x = 2 2/3", "x=8/3"),
        (r"2\frac{2}{3}\pi", r"\frac{8\pi}{3}"), ("(2 2/3, 1)", "(8/3, 1)"), ("1 1/2%", "0.015"),
        (r"9\,500\pi", r"9500\pi"), (r"9{,}500", "9500"), ("9'500", "9500"), ("12 1/2 cm", "25/2"),
        ("**1/2**", r"\frac{1}{2}"), ("*1/2*", "0.5"), ("**$1/2$**", "0.5"), ("$**1/2**$.", "0.5"),
        ("__1/2__", "0.5"), ("`1/2`", "0.5"), (r"\(1/2\)", "0.5"), (r"\[\frac12\]", "0.5"), ("1/2.", "0.5"),
        (r"\textbf{1/2}", "0.5"), (r"$\boxed{\frac{1}{2}}$", "1/2"), ("**x=5**", "5"), ("0.333333", "1/3"),
        ("1e-7", "0.0000001"), (r"10^{-7}", "1e-7"), (r"3 \times 10^8", "300000000"), ("0.5", "50%"),
        (r"6.6 \times 10^{-34} \text{ kg}", r"6.6 \cdot 10^{-34}"), (r"\frac{\sqrt{2}}{17}", "0.083189"),
        ("-5", "\N{MINUS SIGN}5"), ("\N{VULGAR FRACTION ONE HALF}", "1/2"), ("7\N{SUPERSCRIPT TWO}", "49"),
        ("2\N{VULGAR FRACTION ONE HALF}", "5/2"), ("x = 5", "5"), ("5=x+2", "x+2=5"),
        ("f(x)=2x", "2x"), ("y=2x+1", "y-2x=1"),
        ("1 or 2", "1,2"), (r"x=1 \text{ or } x=2", "1, 2"), ("x\N{SUPERSCRIPT TWO}", "x^2"),
        ("1 000", "1000"), ("2\N{SQUARE ROOT}3", r"\sqrt{12}"),
        ("\N{GREEK SMALL LETTER PI}\N{SUPERSCRIPT TWO}", r"\pi^2"),
        ("\N{INFINITY}", r"\infty"), (r"0.1\overline{6}", "1/6"), (r"0.\overline{3}", "0.333333"),
        ("3/4 cup", "0.75"), ("2 1/2 cups", "2.5"), ("25 000 dollars", "25000"), ("Yes.", "yes"),
        ("(B)", "B"), (r"\text{(B)}", "B"), ("2 : 3", "2:3"), ("11:30 a.m.", "11:30 AM"),
        (r"4\pi \text{ cm}^2", r"4\pi"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"[1,\infty)", r"x\ge1"), (r"\log_2 8", "3"), ("1010_2", "1010_{2}"), ("1,2", "(1,2)")]  # fmt: skip
DIFFERENT = [("0.51", "0.5"), ("[0,1]", "[0,1)"), ("(2,1)", "(1,2)"), ("B", "A"), ("5 or 6", "6"), ("", "5"),
             ("}{", "5"), (r"5}\boxed{6", "6"), (r"\frac{1}{0}", "5"), ("no", "yes"), ("-5", "5"),
             ("import os", "5"), ("x" * 5_000, "5"), ("2 2/3", "4/3"), ("-1 1/2", "-1/2"),
             ("(2 2/3, 1)", "(4/3, 1)"), ("[0, 10^{-9}]", "[0, 10^{-8}]"),
             (r"2\frac{2}{3}\pi", r"\frac{4\pi}{3}"), ("0.0000001", "0.0000002"), ("0", "0.0000001"),
             (r"6.6 \times 10^{-34}", r"9.1 \times 10^{-31}"), ("0.0000012", "0.0000014"), ("5%", "500%"),
             (r"6.6 \times 10^{-34} \text{ J}", r"6.7 \times 10^{-34} \text{ J}"), ("0.5%", "50%"),
             (r"10^{-20}x", "10^{-21}x"), (r"\pi \cdot 10^{-20}", r"10^{-21}"), (r"10^{-9}\pi", "0"),
             (r"\{1, 10^{-9}\}", r"\{1, 10^{-8}\}"), ("x=10^{-9}", "x=10^{-8}"),
             (r"\sqrt{2} \cdot 10^{-9}", r"\sqrt{3} \cdot 10^{-9}"), ("0.1250001", "1/8"), ("1.0000001", "1"),
             ("12345678901234567.5", "12345678901234567.25"), (r"\infty", r"-\infty"), ("9{,}500", "500"),
             ("**1/2**", "2"), ("9,500", "500")]  # fmt: skip
DIFFERENT += [(given, "5") for given in (
    r"5 \text{ million}", "5 lakh", "5M", r"5\text{ hundredths}", r"5\text{ and a half}", r"5\mathrm{i}",
    r"5\text{ below zero}", r"\$5 \text{ billion}", r"5\text{!}", r"5\text{ (approx)}", "x+1=5", "x^2=5",
    "2+2=5", "4=5", "x=4=5", "> 5", r"\geq 5", r"\neq 5", r"x \approx 5", r"\not 5", "5, 5",
    "6 \\\\ 5")]  # fmt: skip
DIFFERENT += [("25 000 dollars", "0"), ("5 6", "30"), ("5 6", "56"), ("ABCD", "DCBA"), ("no", "on"),
              (r"\text{evil}", r"\text{live}"), ("2:30", "1:15"), ("0:45", "0"), ("9:00 AM", "9:00 PM"),
              ("2020-05-03", "2012"), ("5-6", "-1"), ("5/3/2020", "1/1212"), ("2x=10", "10"), ("0=0", "1=1"),
              ("1010_2", "1010_8"), ("3,3,4", "3,4"), ("5 r 2", "10r"), (r"\frac{4}{2}=2", "1=1"),
              ("May 5", "5 May")]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "gold", "score"), [*((*p, 1.0) for p in SAME), *((*p, 0.0) for p in DIFFERENT)]
)
def test_mathematical_answers_are_compared(given, gold, score):
    assert find_reward("math_reward_func").score(REASONING.format_reply("so", given), gold) == score


def test_it_works_in_a_thread_and_on_an_answer_that_never_ends():
    reward, found = find_reward("math_reward_func"), []
    text = REASONING.format_reply("so", r"\frac{1}{2} + 0")
    thread = threading.Thread(target=lambda: found.append(reward.score(text, "0.5")))
    thread.start()
    thread.join()
    assert found == [1.0]
    begin = time.monotonic()
    assert math_equal("9^{9^{9^{9}}}", r"10^{10^{10}}", seconds=1) is not True
    assert time.monotonic() - begin < 10


def shown(top: int, bottom: int, size: int, notation: int) -> tuple[str, Fraction]:
    """A number in one of six notations, and its value by Python's fractions."""
    sign, part = -1 if top < 0 else 1, Fraction(1, bottom)
    return [
        (rf"{top} \cdot 10^{{{size}}}", top * Fraction(10) ** size),
        (f"{top}/{bottom}", Fraction(top, bottom)),
        (rf"{'-' * (top < 0)}\frac{{{abs(top)}}}{{{bottom}}}", Fraction(top, bottom)),
        (rf"{top}\frac{{1}}{{{bottom}}}", top + sign * part),
        (f"{top} 1/{bottom}", top + sign * part),
        (f"{top * 1001:,}.5".replace(",", "{,}"), top * 1001 + sign * Fraction(1, 2)),
    ][notation]


NUMBERS = st.builds(shown, st.integers(-99, 99), st.integers(2, 12), st.integers(-30, 3), st.integers(0, 5))
ALWAYS = {"deadline": None, "derandomize": True, "database": None}


@settings(max_examples=400, **ALWAYS)
@any_of(NUMBERS, NUMBERS, st.sampled_from(["{}", "**{}**", "${}$", r"\boxed{{{}}}", r"\({}\)"]))
def test_only_the_right_number_is_right(given, gold, mark):
    score = find_reward("math_reward_func").score
    for answer, value in (given, gold):
        text = REASONING.format_reply("so", mark.format(answer))
        assert score(text, gold[0]) == float(value == gold[1]), (answer, gold)
        off = value + max(abs(value), Fraction(1, 10**9)) / 10**7
        assert score(text, f"{off.numerator}/{off.denominator}") == 0.0, (answer, off)


@settings(max_examples=60, **ALWAYS)
@any_of(NUMBERS, NUMBERS, st.sampled_from([r"\sqrt{{2}} \cdot ({})", "x = {}", "({}, 1)", "({})y"]))
def test_only_the_right_number_is_right_in_an_expression(given, gold, whole):
    """math-verify compares the expressions."""
    for answer, value in (given, gold):
        pair = whole.format(answer), whole.format(gold[0])
        assert math_equal(*pair) is (value == gold[1]), pair
