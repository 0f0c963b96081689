"""Grading, intervals, and what a check did to a step."""

import pytest

from r1nb.evaluation import count_checks, grade, summarize, wilson
from r1nb.policy import Completion
from r1nb.prompts import format_answer
from r1nb.recipe import load_recipe


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "layout"),
    [
        (format_answer("6*7=42", "42"), True, True, True),
        ("42", False, True, False),
        ("so 6*7=42\n#### 42", False, True, False),
        (format_answer("6*7=42", "41"), False, False, True),
        ("Sure! " + format_answer("6*7=42", "$42"), True, True, False),
        ("<reasoning> 42 </reasoning> <answer> 42 </answer>", True, True, False),
        ("<reasoning>\n6*7=42\n</reasoning>\n<answer>\n42", False, True, False),
        ("I do not know", False, False, False),
    ],
)
def test_grading(text, strict, lenient, layout):
    rows = {"question": ["What is 6*7?"], "answer": ["42"]}
    (graded,) = grade(rows, [Completion(text, (7,) * 9, False)], load_recipe())
    assert (graded.strict, graded.lenient, graded.format) == (strict, lenient, layout)


def test_a_summary_counts_and_averages():
    right, bare = format_answer("6*7=42", "42"), "42"
    completions = [Completion(right, (7,) * 20, False), Completion(bare, (7,) * 2, True)]
    rows = {"question": ["?", "?"], "answer": ["42", "42"]}
    summary = summarize(grade(rows, completions, load_recipe()))
    assert (summary["strict"], summary["lenient"], summary["format"]) == (0.5, 1.0, 0.5)
    assert (summary["n"], summary["cut"], summary["tokens"]) == (2, 0.5, 11)
    assert summary["rewards"]["correctness_reward_func"] == 1.0


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "layout"),
    [
        (format_answer("so", "8*(4+7-8)", "think"), True, True, True),
        ("<think>so</think> <answer>8*(4+7-8)</answer>", True, True, True),
        ("So it is\n8*(4+7-8)", False, True, False),
        (format_answer("so", "4*7-4", "think"), False, False, True),
        (format_answer("so", "8*(4+7-8)"), False, True, False),  # right, in the other layout's tags
    ],
)
def test_grading_by_the_recipes_own_rewards(text, strict, lenient, layout):
    rewards = {"countdown_reward_func": 1.0, "r1_format_reward_func": 1.0}
    recipe = load_recipe(rewards=rewards, layout="think")
    rows = {"question": ["?"], "answer": ["24"], "nums": [[4, 7, 8, 8]], "target": [24]}
    (graded,) = grade(rows, [Completion(text, (7,) * 9, False)], recipe)
    assert (graded.strict, graded.lenient, graded.format) == (strict, lenient, layout)
    assert graded.rewards == {name: float(paid) for name, paid in zip(rewards, (strict, layout), strict=True)}


def test_what_a_judge_could_not_score_is_not_counted():
    recipe = load_recipe(rewards={"judge_reward_func": 1.0}, judge_url="http://127.0.0.1:9", judge_model="x")
    graded = grade({"question": ["?"], "answer": ["42"]}, [Completion("42", (7,), False)], recipe)
    assert summarize(graded)["rewards"] == {"judge_reward_func": None}


def test_wilson_against_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81/263, 15/148, 0/20, 1/29.
    published = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                 (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)]  # fmt: skip
    for hits, n, low, high in published:
        assert wilson(hits, n) == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize(
    ("line", "corrected", "spoiled", "missed"),
    [
        ("There are 6*7=42 pens. Check: 6*7=42, right.", 0, 0, 0),
        ("There are 6*7=44 pens. Check: 6*7=42, not 44.", 1, 0, 0),
        ("There are 6*7=42 pens. Check: 6*7=44, not 42.", 0, 1, 0),
        ("There are 6*7=44 pens. Check: 6*7=44, right.", 0, 0, 1),
    ],
)
def test_what_a_check_did(line, corrected, spoiled, missed):
    counts = count_checks([line, "no check: 1+1=2"])
    assert counts["completions"] == 2
    assert counts["with_check"] == counts["checks"] == 1
    assert (counts["corrected"], counts["spoiled"], counts["missed"]) == (
        corrected,
        spoiled,
        missed,
    )
