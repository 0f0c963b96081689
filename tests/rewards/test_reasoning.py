"""The rewards for reasoning: correct equations, one language, length."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from r1nb.errors import UserError
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.reasoning import find_equations
from r1nb.rewards.registry import find_reward
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import REASONING

EQUATIONS = {
    "36*30=1080": True,
    "36 * 30 = 1,080": True,
    "36*30=1081": False,
    "2+3*4=14": True,
    "(2+3)*4=20": True,
    "$5 x 3 = $15": True,
    "20/100*50 = 10": True,
    "20% * 50 = 10": True,
    "3/4 = 75%": True,
    "100*3/4 = 75%": True,
    "10/3 = 3.33": True,
    "10/3 = 3.34": False,
    "10/3 = 3": False,
    ".5*4 = 2": True,
    "20*.05 = 1": True,
    "5 boxes * 12 pens/box = 60 pens": True,
    "3-8=-5": True,
    "(she has 3*4=12)": True,
    "so 3×4=12.": True,  # noqa: RUF001
    "6/3 = 10/5": True,
}
NO_EQUATIONS = ["", "x = 5", "12", "a*b=c", "1 = 1", "= 5", "3*4=", "2p+3=9", "2(6+12)=36", "6:00+48=6:48",
                "n*3+2=11", "12 =", "3 * = 5", "1/0=5"]  # fmt: skip


@pytest.mark.parametrize(("text", "holds"), EQUATIONS.items(), ids=EQUATIONS)
def test_an_equation_is_found_and_checked(text, holds):
    ((_, _, found),) = find_equations(text)
    assert found == holds


@pytest.mark.parametrize("text", NO_EQUATIONS)
def test_text_that_is_not_an_equation_is_ignored(text):
    assert find_equations(text) == []


def test_a_chain_is_checked_link_by_link():
    assert [holds for *_, holds in find_equations("2+3=5*2=10=10")] == [False, True]


@pytest.mark.parametrize("form", ["{}%", "{} %", r"{}\%", "{} percent", "{} per cent", "{}%)", "{}% of it"])
@pytest.mark.parametrize(
    ("left", "right"), [("1/3", "33"), ("1/3", "33.3"), ("1/3", "33.33"), ("2/3", "67"), ("2/3", "66.7"),
                        ("1/8", "12.5"), ("1/8", "13"), ("1/2", "50"), ("7/2", "350"), ("1 - 1/3", "67"),
                        ("1/3 * 100", "33"), ("100 / 3", "33"), ("100% / 3", "33"), ("1/3 - 2/3", "-33")]
)  # fmt: skip
def test_a_percentage_may_be_rounded(left, right, form):
    assert [holds for *_, holds in find_equations(f"{left} = {form.format(right)}")] == [True]


@pytest.mark.parametrize(
    "text",
    ["1/3 = 34%", "1/3 = 32%", "1/3 = 33.4%", "1/3 = 33", "2/3 = 66%", "1/2 = 51%", "1/2 = 49.6%", "1/3 = 3%",
     "1/3 * 100 = 34%", "1/3 * 100 = 33", "7/2 = 3", "7/2 = 4", "7/2 = 3%", "7/2 = 4%", "10/3 = 3%",
     "33% + 33% = 67%", "1/2 = 25% + 26%", "100% / 3 = 34%"],
)  # fmt: skip
def test_a_wrong_percentage_or_integer_does_not_hold(text):
    assert [holds for *_, holds in find_equations(text)] == [False]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("1/3 = 33% and 2/3 = 67%", [True, True]),
        ("1/3 = 33%, 2/3 = 66%", [True, False]),
        ("1 - 2/3 = 1/3 = 33%, so 100% - 33% = 67%", [True, True, True]),
        ("1/3 = 33% * 60 = 19.8", [False, True]),
        ("33% + 33% = 66% = 0.66", [True]),
        ("1/3 = 33 1/3%, 3/4 = 75%", [True]),  # a mixed number is skipped
        ("10/3 = 3⅓", []),
        ("17 / 5 = 3 R2 and 23 / 5 = 4 R3", [True, True]),
        ("17 / 5 = 3 remainder 2 = 3 + 2/5 = 3.4", [True, True]),
        ("35/5 = 7 = 17/2 = 8 R1", [True, True]),
        ("17 - 2 = 15 / 5 = 3 remainder 0", [False, True]),
    ],
)
def test_a_chain_of_percentages_or_remainders(text, holds):
    assert [found for *_, found in find_equations(text)] == holds


REMAINDERS = """3 remainder 2; 3 R2; 3 r 2; 3r2; 3 R 2; 3 R. 2; 3 (R2); 3 rem 2; 3 rem. 2; 3 (remainder 2)
3 with remainder 2; 3 with a remainder of 2; 3, remainder 2; 3 Remainder: 2; 3, remainder = 2; 3 remainder=2
3 and the remainder is 2, so 4; 3 boxes remainder 2; 3 boxes with a remainder of 2 pens; 3 with 2 left over
3 full boxes, leaving a remainder of 2; 3 boxes with 2 pens left; 3, with 2 remaining"""


@pytest.mark.parametrize("written", [part for line in REMAINDERS.splitlines() for part in line.split("; ")])
@pytest.mark.parametrize("division", ["17 / 5", "17/5", "17 ÷ 5", "17 pens / 5 pens", "(10 + 7) / (2 + 3)"])
def test_a_division_with_remainder_holds_if_both_numbers_are_right(division, written):
    for quotient, rest in [(3, 2), (3, 1), (2, 7), (4, 2), (2, 2), (3, 7)]:
        text = f"{division} = {written.translate({ord('3'): str(quotient), ord('2'): str(rest)})}"
        ((_, results, holds),) = find_equations(text)
        assert results == (quotient, rest)
        assert holds == ((quotient, rest) == (3, 2)), text


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 100), st.integers(-1, 1), st.integers(-1, 1))
def test_a_division_with_remainder_agrees_with_divmod(dividend, divisor, more, less):
    quotient, rest = divmod(dividend, divisor)
    quotient, rest = quotient + more, abs(rest + less * divisor)
    holds = find_equations(f"{dividend} / {divisor} = {quotient} remainder {rest}")[0][2]
    assert holds == ((quotient, rest) == divmod(dividend, divisor))


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 500), st.integers(1, 99), st.integers(0, 3), st.integers(-1, 1))
def test_a_percentage_is_rounded_to_its_decimals(part, whole, decimals, more):
    exact, step = Decimal(100 * part) / whole, Decimal(1).scaleb(-decimals)
    shown = exact.quantize(step) + more * step
    assume(shown >= 0)
    holds = find_equations(f"{part} / {whole} = {shown}%")[0][2]
    assert holds == (abs(Fraction(100 * part, whole) - Fraction(shown)) <= Fraction(step) / 2)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("15 / 5 = 3 remainder 0", [True]),
        ("17.5 / 5 = 3 remainder 2.5", [True]),
        ("1,000 / 300 = 3 remainder 100", [True]),
        ("-17 / 5 = -4 remainder 3", [True]),
        ("17 / (10/2) = 3 remainder 2", [True]),
        ("17 / 5 = 3.4 remainder 0", [False]),
        ("17 / 5 = 3.2 remainder 1", [False]),
        ("15 / 5 = 3 remainder 2", [False]),
        ("17 * 5 = 85 remainder 0", [False]),
        ("17 - 5 = 12 remainder 0", [False]),
        ("15 / 5 = 3 with no remainder", [True]),
        ("15 / 5 = 3 without a remainder", [True]),
        ("17 / 5 = 3 with no remainder", [False]),
        ("100% - 25% = 75% of the remainder", [True]),
        ("17 / 5 = 3 remainder two", []),  # not understood, so it is skipped
        ("17 / 5 = 3 remainder 2/5", []),
        ("17 / 5 = 3 remainder -2", []),
        ("10 / 2 = 5 with 3 friends", [True]),
        ("10 / 2 = 5 red balls", [True]),
        ("10 / 2 = 5, r = 3", [True]),
        ("17 - remainder = 15 / 5 = 3", [True]),
        ("the remainder = 17 - 15 = 2", [True]),
        ("the remainder 2 + 4 = 6", [True]),
        ("12 / 6 = 17 % 5", []),
        ("17 % 5 + 1 = 3", []),
        ("17 mod 5 + 1 = 3", []),
        ("12 / 6 = 17 mod 5", []),
    ],
)
def test_remainders_are_told_from_other_text(text, holds):
    assert [found for *_, found in find_equations(text)] == holds


@pytest.mark.parametrize(
    ("reasoning", "answer", "score"),
    [
        ("12*3=36\n36/2=18", "18", 1.0),
        ("12*3=35\n36/2=18", "18", 0.5),
        ("12*3=36\n36/2=18", "36", 0.0),
        ("12*3=36\n36/2=18", "$18.00", 1.0),
        ("It is 18.", "18", 0.0),
        ("12*3=36", "thirty-six", 0.0),
        ("1/3 = 33%", "34%", 0.0),
        ("17/5 = 3 remainder 2", "5", 0.0),
        ("17/5 = 3 remainder 1", "3", 0.0),
        ("12*3=36\n17/5 = 3 remainder 1", "3", 0.5),
        ("", "", 0.0),
    ],
)
def test_the_steps_reward(reasoning, answer, score):
    assert (
        find_reward("steps_reward_func").score(REASONING.format_reply(reasoning, answer), "anything") == score
    )


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("-3 + 5 = 2", True),
        ("- 5 + 3 = 8", True),  # a list item, not minus 5
        ("2^3 + 1 = 9", True),
        ("√9 + 1 = 4", True),
        ("(1 + 2)(3 + 4) = 21", True),
        ("50 * 100 = 5 × 10^3", True),  # noqa: RUF001
        ("5 * 5 = 5²", True),
        ("10 / 2 = -2 + 7", True),
        ("1 - 10 = -2 + 7", False),
        ("2 + 3 = 5^2", False),
        ("2 * 5 = 10²", False),
        ("3/10 = 33.3%", False),
        ("1/3 = 33.3%", True),
        ("3/4 * 100 = 75%", True),
    ],
)
def test_no_step_is_misjudged(text, true):
    """But a step that is not understood may be skipped."""
    assert (not true) not in [holds for *_, holds in find_equations(text)]


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [("3 / 4 = 75%", "75%"), ("3 / 4 = 75%", "0.75"), ("1/2 + 1/3 = 5/6", "5/6"), ("1/3 = 33%", "33 percent"),
     ("(1/3 = 33%)", "33%"), ("17 / 5 = 3 remainder 2", "3"), ("17 / 5 = 3 remainder 2", "2"),
     ("17 / 5 = 3 remainder 2", "3 remainder 2")],
)  # fmt: skip
def test_an_answer_follows_from_a_step_with_the_same_value(reasoning, answer):
    assert find_reward("steps_reward_func").score(REASONING.format_reply(reasoning, answer)) == 1.0


def test_steps_of_real_solutions_hold(gsm8k_dir):
    rows = load_rows(str(gsm8k_dir), "test")
    equations = [found for row in rows for found in find_equations(row["solution"])]
    assert len(equations) > 3_500
    assert sum(holds for *_, holds in equations) > 0.99 * len(equations)
    full = [
        find_reward("steps_reward_func").score(REASONING.format_reply(row["solution"], row["answer"]))
        for row in rows
    ]
    assert sum(score == 1.0 for score in full) > 0.85 * len(rows)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", REASONING.format_reply("3² + 4² is 5², and ½ is .5", "5")),
        ("ja", REASONING.format_reply("人々のデータ", "5")),
        ("zh", REASONING.format_reply("人々〇", "5")),
        ("zh", "<reasoning>\n中文"),
    ],
)
def test_a_text_in_one_language(language, text):
    assert find_reward("language_reward_func").bind(language=language)(completions=[text]) == [1.0]


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("We add 3 and 4.", "en", 1.0),
        ("We add 3 和 4.", "en", 2 / 3),
        ("我们相加", "en", 0.0),
        ("我们 add 相加", "zh", 0.8),
        ("мы складываем", "ru", 1.0),
        ("naïve café", "en", 1.0),
        ("1 + 2 = 3", "en", 0.0),
        ("", "en", 0.0),
        (REASONING.format_reply("сумма", "in English"), "en", 0.0),  # only the reasoning counts
    ],
)
def test_the_language_reward(text, language, share):
    assert find_reward("language_reward_func").score(text, language=language) == pytest.approx(share)


def test_an_unknown_language_is_refused_when_the_recipe_is_loaded():
    with pytest.raises(UserError, match="language = 'klingon' is unknown: use one of"):
        load_recipe(rewards={"language_reward_func": 1.0}, language="klingon")


def test_overlong_is_trls():
    recipe = load_recipe(rewards={"overlong_reward_func": 1.0}, max_completion_length=100)
    (func,) = recipe.reward_funcs()
    ids = [[0] * n for n in (1, 80, 90, 100, 200)]
    paid = func(completions=["x"] * 5, answer=["1"] * 5, completion_ids=ids)
    assert paid == pytest.approx([0.0, 0.0, -0.5, -1.0, -1.0])
