"""Grading: strict, lenient and format, and summaries of many answers."""

from dataclasses import replace

import pytest

from r1nb.policy.policy import Completion
from r1nb.rewards.grading import Judge, grade, make_judge, summarize, summarize_samples
from r1nb.text.prompts import REASONING, THINK

FIVE = make_judge(dict.fromkeys(
    ("correctness_reward_func", "int_reward_func", "strict_format_reward_func", "soft_format_reward_func",
     "xmlcount_reward_func"), 1.0,
))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "layout"),
    [
        (REASONING.format_reply("6*7=42", "42"), True, True, True),
        ("42", False, True, False),
        ("so 6*7=42\n#### 42", False, True, False),
        (REASONING.format_reply("6*7=42", "41"), False, False, True),
        ("Sure! " + REASONING.format_reply("6*7=42", "$42"), True, True, False),
        ("<reasoning> 42 </reasoning> <answer> 42 </answer>", True, True, False),
        ("<reasoning>\n6*7=42\n</reasoning>\n<answer>\n42", False, True, False),
        ("I do not know", False, False, False),
    ],
)
def test_strict_lenient_and_format(text, strict, lenient, layout):
    rows = {"question": ["What is 6*7?"], "answer": ["42"]}
    (graded,) = grade(rows, [Completion(text, (7,) * 9, False)], FIVE)
    assert (graded.strict, graded.lenient, graded.format) == (strict, lenient, layout)


@pytest.mark.parametrize(
    ("text", "gold", "lenient"),
    [
        ("The profit is $9{,}500$.", "9500", True),
        ("The profit is $9{,}500$.", "500", False),
        (r"The profit is 9\,500", "9,500", True),
        ("It is 1/2.", "2", False),
        ("It is 1e-7.", "-7", False),
        ("It is 72, in total, so she earns that.", "72", True),
    ],
)
def test_the_whole_last_number_counts(text, gold, lenient):
    (graded,) = grade({"question": ["?"], "answer": [gold]}, [Completion(text, (7,), False)], FIVE)
    assert graded.lenient is lenient


@pytest.mark.parametrize(
    ("columns", "judge"),
    [(("problem",), "correctness"), (("nums",), "correctness"), (("nums", "target"), "countdown"),
     (("gym_task",), "gym")],
)  # fmt: skip
def test_columns_choose_the_judge(columns, judge):
    assert (
        make_judge({"soft_format_reward_func": 1.0}, columns=columns).answer.__name__
        == f"{judge}_reward_func"
    )


def test_a_summary_counts_and_averages():
    right, bare = REASONING.format_reply("6*7=42", "42"), "42"
    completions = [Completion(right, (7,) * 20, False), Completion(bare, (7,) * 2, True)]
    rows = {"question": ["?", "?"], "answer": ["42", "42"]}
    summary = summarize(grade(rows, completions, FIVE))
    assert (summary["strict"], summary["lenient"], summary["format"]) == (0.5, 1.0, 0.5)
    assert (summary["n"], summary["cut"], summary["tokens"]) == (2, 0.5, 11)
    assert summary["rewards"]["correctness_reward_func"] == 1.0


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "layout"),
    [
        (THINK.format_reply("so", "8*(4+7-8)"), True, True, True),
        ("<think>so</think> <answer>8*(4+7-8)</answer>", True, True, True),
        ("So it is\n8*(4+7-8)", False, True, False),
        (THINK.format_reply("so", "4*7-4"), False, False, True),
        (REASONING.format_reply("so", "8*(4+7-8)"), False, True, False),  # right, but tags of another layout
    ],
)
def test_grading_with_the_rewards_of_countdown(text, strict, lenient, layout):
    weights = {"countdown_reward_func": 1.0, "r1_format_reward_func": 1.0}
    rows = {"question": ["?"], "answer": ["24"], "nums": [[4, 7, 8, 8]], "target": [24]}
    (graded,) = grade(rows, [Completion(text, (7,) * 9, False)], make_judge(weights, THINK))
    assert (graded.strict, graded.lenient, graded.format) == (strict, lenient, layout)
    assert graded.rewards == {name: float(paid) for name, paid in zip(weights, (strict, layout), strict=True)}


def unreachable_judge() -> Judge:
    return make_judge({"judge_reward_func": 1.0}, judge_url="http://127.0.0.1:9", judge_model="x")


def test_answers_that_a_judge_could_not_score_are_not_counted():
    graded = grade(
        {"question": ["?"], "answer": ["42"]}, [Completion("42", (7,), False)], unreachable_judge()
    )
    assert summarize(graded)["rewards"] == {"judge_reward_func": None}


def graded(*answers, gold="42"):
    rows = {"question": ["?"] * len(answers), "answer": [gold] * len(answers)}
    return grade(rows, [Completion(text, (7,), False) for text in answers], FIVE)


def test_different_spellings_of_an_answer_count_as_one_vote():
    spelled = [REASONING.format_reply("so", "1,080"), "so it is 1080.0", "$1080", "none"]
    given = [g.given for g in graded(*spelled, gold="1080")]
    assert given == ["1.08E+3", "1.08E+3", "1.08E+3", ""]


def test_samples_are_averaged_over_problems():
    groups = [graded("42", "42", "41", "41"), graded("no number", "41", "41", "40")]
    summary = summarize_samples(groups)
    assert (summary["problems"], summary["samples"]) == (2, 4)
    assert [summary["pass"][k][0] for k in ("1", "2", "4")] == pytest.approx([0.25, (1 - 1 / 6) / 2, 0.5])
    assert summary["maj"]["4"][0] == pytest.approx(0.25)  # 1st problem: a tie; 2nd: none right
    for value, low, high in summary["pass"].values():
        assert 0 <= low <= value <= high <= 1
    unjudged = [[replace(groups[0][0], right=None)] * 4]
    assert summarize_samples(groups + unjudged) == summary
    assert summarize_samples(unjudged)["problems"] == 0


def test_a_vote_uses_the_answer_block_and_not_a_number_after_it():
    (wrong,) = graded(REASONING.format_reply("so", "41") + "\nor is it 42")
    assert (wrong.lenient, wrong.right, wrong.given) == (True, False, "41")
    (bare,) = graded("it is 42")
    assert (bare.strict, bare.right, bare.given) == (False, True, "42")
