"""Reflection and backtracking in completions, and whether they changed the answer."""

import pytest

from r1nb.errors import UserError
from r1nb.evaluation.reflection import count_checks, read_reflection, rescue_rates
from r1nb.rewards.grading import Graded
from r1nb.tasks.sources import SOURCES
from r1nb.text.prompts import THINK

QUESTION = SOURCES["Jiayi-Pan/Countdown-Tasks-3to4"].read({"nums": [3, 8, 1], "target": 24})["question"]
RESCUED = THINK.format_reply("8*3=24, 24+1=25, not 24.\n8*3=24, 24/1=24.", "8*3/1")
SPOILED = THINK.format_reply("8*3=24, 24*1=24.", "8*3+1")
IN_VAIN = THINK.format_reply("8+3=11, 11+1=12, not 24.\n8*3=24, 24+1=25.", "8*3+1")
FIRST = THINK.format_reply("8*3=24, 24*1=24. Check: 8*3*1=24, right.", "8*3*1")


@pytest.mark.parametrize(
    ("text", "hits", "checks", "words", "change"),
    [
        (RESCUED, (False, True), False, False, "rescued"),
        (SPOILED, (True,), False, False, "spoiled"),
        (IN_VAIN, (False, False), False, False, ""),
        (FIRST, (True,), True, False, ""),
        (THINK.format_reply("8 * 3 = 24. 24 * 1 = 24.", "8*3*1"), (True,), False, False, ""),
        (THINK.format_reply("8+3=11. 8*3=24, 24*1=24.", "8*3*1"), (False, True), False, False, "rescued"),
        (THINK.format_reply("8*3+1=25, not 24.\n- 8*3=24, 24*1=24.", "8*3*1"), (True,), False, False, ""),
        (THINK.format_reply("8*3=24, 24+1=24. Wait, 24+1=25, not 24.\n8*3=24, 24*1=24.", "8*3*1"),
         (False, True), False, True, "rescued"),
        (THINK.format_reply("8 × 3 = 24, 24 ÷ 1 = 24. Let me double-check.", "8*3/1"),  # noqa: RUF001
         (True,), True, True, ""),
        (THINK.format_reply("8*3=24.", "8*3*1"), (False,), False, False, ""),  # a number is unused
        (THINK.format_reply("8*3=25, 25-1=24.", "8*3-1"), (False,), False, False, ""),  # a false equation
        (THINK.format_reply("8*3=24, 24*3=72, 72/3=24.", "8*3*1"), (False,), False, False, ""),
        (THINK.format_reply("8*3=24, 1/0=1.", "8"), (False,), False, False, ""),
        (THINK.format_reply("I wait.", "8*3*1"), (), False, True, ""),
        ("8*3*1", (), False, False, ""),
        ("", (), False, False, ""),
    ],
)  # fmt: skip
def test_attempts_checks_and_changes_of_a_completion_are_read(text, hits, checks, words, change):
    read = read_reflection(text, QUESTION)
    assert (read.hits, read.checks, read.words, read.change) == (hits, checks, words, change)
    assert read.backtracks == (len(hits) > 1 and not hits[0])
    assert read.right == (text in (RESCUED, FIRST) or "8*3*1\n<" in text or "8*3/1\n<" in text)


def test_another_kind_of_problem_is_refused():
    with pytest.raises(UserError, match="Not a Countdown problem: 'What is 2 \\+ 2\\?'"):
        read_reflection(RESCUED, "What is 2 + 2?")


def graded(text):
    return Graded(QUESTION, "24", text, (1,), False, True, True, True, {})


def test_the_rescue_rate_is_compared_with_that_of_a_new_guess():
    groups = [[graded(text) for text in (RESCUED, IN_VAIN, FIRST, SPOILED)]]
    n, rescued, guessed = rescue_rates(groups)
    assert (n, rescued) == (2, 0.5)
    assert guessed == pytest.approx(2 / 3)  # two of the other three are right at the first attempt
    assert rescue_rates([[graded("8*3*1")]]) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("line", "corrected", "spoiled", "missed"),
    [
        ("There are 6*7=42 pens. Check: 6*7=42, right.", 0, 0, 0),
        ("There are 6*7=44 pens. Check: 6*7=42, not 44.", 1, 0, 0),
        ("There are 6*7=42 pens. Check: 6*7=44, not 42.", 0, 1, 0),
        ("There are 6*7=44 pens. Check: 6*7=44, right.", 0, 0, 1),
    ],
)
def test_checks_that_corrected_spoiled_or_missed_are_counted(line, corrected, spoiled, missed):
    counts = count_checks([line, "no check: 1+1=2"])
    assert counts["completions"] == 2
    assert counts["with_check"] == counts["checks"] == 1
    assert (counts["corrected"], counts["spoiled"], counts["missed"]) == (corrected, spoiled, missed)
