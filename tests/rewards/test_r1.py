"""R1's two rewards, exact arithmetic, and Countdown's solver."""

import time
from fractions import Fraction

import pytest

from r1nb.rewards.registry import find_reward
from r1nb.text.arithmetic import evaluate_expression, solve_countdown
from r1nb.text.prompts import REASONING, THINK

FORMAT, COUNTDOWN = find_reward("r1_format_reward_func"), find_reward("countdown_reward_func")
RIGHT = {
    "parentheses": "8*(4+7-8)",
    "spaces": " 8 * ( 4 + 7 - 8 ) ",
    "two lines": "8*\n(4+7-8)",
    "with its result": "8*(4+7-8) = 24",
    "signs of print": "8×(4+7−8)",  # noqa: RUF001
    "surplus parentheses": "((8)*((4+7)-8))",
    "another order": "(7+4-8)*8",
    "decimal point": "8.0*(4+7-8)",
}
WRONG = {
    "another value": "8+8+7+4",
    "a number twice": "8*8-4*7-8-4",
    "a number missing": "8*(7-4)",
    "a number too many": "8*(4+7-8)+0",
    "another number": "6*4",
    "the target itself": "24",
    "with another result": "8*(4+7-8) = 25",
    "two equations": "8*(4+7-8) = 24 = 24",
    "power": "8**(7-4)/8",
    "tower of powers": "9**9**9",
    "floor division": "8*(4+7-8)//1",
    "remainder": "8*(4+7-8)%25",
    "division by zero": "8/(4-4)",
    "division by a hidden zero": "8/(8-8)+4*7",
    "import": "__import__('os').system('true')",
    "call": "eval('8*(4+7-8)')",
    "call of a number": "8(4+7-8)",
    "name": "x",
    "string": "'8*(4+7-8)'",
    "list": "[8*(4+7-8)]",
    "tuple": "8*4,7,8",
    "comparison": "8*(4+7-8)==24",
    "lambda": "(lambda: 24)()",
    "sign before a number": "-8*(8-4-7)",
    "sign before a parenthesis": "8*-(8-4-7)",
    "underscore": "8*(4+7-0_8)",
    "leading zero": "08*(4+7-8)",
    "hexadecimal": "0x8*(4+7-8)",
    "exponent": "8e0*(4+7-8)",
    "complex": "8j*(4+7-8)",
    "arabic-indic digits": "٨*(٤+٧-٨)",  # noqa: RUF001
    "superscript": "8*(4+7-8)²",
    "fullwidth": "８*(4+7-8)",  # noqa: RUF001
    "comment": "8*(4+7-8) # = 24",
    "semicolon": "8*(4+7-8);1",
    "unclosed": "8*(4+7-8",
    "nothing": "",
    "blank": " \n ",
    "words": "eight times three",
    "LaTeX": r"8 \times (4+7-8)",
    "ten thousand characters": "8*(4+7-8)+0" + "+0" * 5_000,
    "ten thousand parentheses": "(" * 5_000 + "24" + ")" * 5_000,
    "hundred parentheses": "(" * 95 + "24" + ")" * 95,
    "huge number": "9" * 190,
    "null": "8*(4+7-8)\0",
}


def countdown(answer, nums=(4, 7, 8, 8), target=24):
    text = REASONING.format_reply("so", answer)
    (score,) = COUNTDOWN(completions=[text], nums=[list(nums)], target=[target])
    return score


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_right_countdown_answers_earn_one(answer):
    assert countdown(answer) == 1.0


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_wrong_countdown_answers_earn_zero_quickly(answer):
    start = time.process_time()
    assert countdown(answer) == 0.0
    assert time.process_time() - start < 0.5


def test_arithmetic_is_exact():
    assert countdown("3*(1/3)", (3, 1, 3), 1) == 1.0
    assert countdown("8/(3-8/3)", (3, 3, 8, 8), 24) == 1.0  # in floating point: 23.999...
    assert evaluate_expression("0.1+0.2")[0] == Fraction(3, 10)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (REASONING.format_reply("so", "1"), 1.0),
        (f"\n{REASONING.format_reply('so', '1')}\n", 1.0),
        ("<reasoning>so</reasoning> <answer>1</answer>", 1.0),
        ("Well: " + REASONING.format_reply("so", "1"), 0.0),
        (REASONING.format_reply("so", "1") + " Done.", 0.0),
        (REASONING.format_reply(" ", "1"), 0.0),
        (REASONING.format_reply("so", ""), 0.0),
        (REASONING.format_reply("so", "1") * 2, 0.0),
        (THINK.format_reply("so", "1"), 0.0),
        ("1", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_reward(text, score):
    assert FORMAT(completions=[text]) == [score]


def test_the_layout_decides_which_tags_count():
    text = THINK.format_reply("so", "8*(4+7-8)")
    assert text.startswith("<think>")
    assert FORMAT.score(text, layout=THINK) == 1.0
    puzzle = {"nums": [4, 7, 8, 8], "target": 24}
    assert COUNTDOWN.score(text, layout=THINK, **puzzle) == 1.0
    assert COUNTDOWN.score(text, **puzzle) == 0.0


def test_the_solver_finds_a_solution_if_there_is_one():
    for nums, target in (((4, 7, 8, 8), 24), ((3, 3, 8, 8), 24), ((19, 36, 55), 72), ((5,), 5)):
        assert countdown(solve_countdown(list(nums), target), nums, target) == 1.0
    assert solve_countdown([1, 1], 7) is None
    begin = time.process_time()
    assert solve_countdown([1, 1, 1, 1, 1, 1, 9], 987654) is None  # it does not search for minutes
    assert time.process_time() - begin < 5
