"""Whether two answers mean the same, decided by math-verify."""

import pytest

from r1nb.rewards.registry import find_reward
from r1nb.text.prompts import REASONING

SAME = [(r"\frac{1}{2}", "0.5"), ("1/2", r"\frac12"), (r"\boxed{5}", "5"), ("$5$", "5"), ("x=5", "5"),
        (r"5 \text{ cm}", "5"), (r"90^\circ", "90"), (r"2\sqrt{3}", r"\sqrt{12}"), ("50%", r"\frac{1}{2}"),
        (r"\{1,2\}", r"\{2,1\}"), ("(x+1)^2", "x^2+2x+1"), ("1,080", "1080"), ("(1,2)", "(1, 2)"),
        ("yes, no", "Yes,  no"), ("2^{10}", "1024")]  # fmt: skip
DIFFERENT = [("0.51", "0.5"), ("[0,1]", "[0,1)"), ("(2,1)", "(1,2)"), ("B", "A"), ("5 or 6", "6"), ("", "5"),
             ("}{", "5"), (r"5}\boxed{6", "6"), (r"\frac{1}{0}", "5"), ("no", "yes"), ("-5", "5"),
             ("import os", "5"), ("x" * 5_000, "5")]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "gold", "score"), [*((*p, 1.0) for p in SAME), *((*p, 0.0) for p in DIFFERENT)]
)
def test_mathematical_answers_are_compared(given, gold, score):
    assert find_reward("math_reward_func").score(REASONING.format_reply("so", given), gold) == score
