"""last_number_reward_func pays for the right last number, with tags or without."""

import pytest

from r1nb.rewards import last_number_reward_func
from r1nb.text.prompts import REASONING


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        (r"5 * 16 = 80. So the answer is \(\boxed{80}\).", "80", 1.0),
        ("He has 1,080 cookies", "1080", 1.0),
        (REASONING.format_reply("40 + 40 = 80", "80"), "80", 1.0),
        ("<reasoning>40 + 40 = 80", "80", 1.0),
        ("It is 80, since 40 + 40 = 81.", "80", 0.0),
        ("It is -80", "80", 0.0),
        ("It is 180", "80", 0.0),
        ("I do not know", "80", 0.0),
        ("", "80", 0.0),
    ],
)
def test_the_last_number_counts(text, gold, score):
    found, reason = last_number_reward_func.explain(text, gold)
    assert found == score
    assert "last number" in reason
