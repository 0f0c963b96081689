"""Grading, intervals, and what a check did to a step."""

from dataclasses import replace

import pytest
from datasets import Dataset

from r1nb.evaluation.accuracy import evaluate, grade, sample_groups, summarize, summarize_samples
from r1nb.evaluation.reflection import count_checks
from r1nb.policy.policy import Completion
from r1nb.recipes.recipe import load_recipe
from r1nb.text.prompts import REASONING, THINK


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
def test_grading(text, strict, lenient, layout):
    rows = {"question": ["What is 6*7?"], "answer": ["42"]}
    (graded,) = grade(rows, [Completion(text, (7,) * 9, False)], load_recipe())
    assert (graded.strict, graded.lenient, graded.format) == (strict, lenient, layout)


def test_a_summary_counts_and_averages():
    right, bare = REASONING.format_reply("6*7=42", "42"), "42"
    completions = [Completion(right, (7,) * 20, False), Completion(bare, (7,) * 2, True)]
    rows = {"question": ["?", "?"], "answer": ["42", "42"]}
    summary = summarize(grade(rows, completions, load_recipe()))
    assert (summary["strict"], summary["lenient"], summary["format"]) == (0.5, 1.0, 0.5)
    assert (summary["n"], summary["cut"], summary["tokens"]) == (2, 0.5, 11)
    assert summary["rewards"]["correctness_reward_func"] == 1.0


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "layout"),
    [
        (REASONING.format_reply("so", "8*(4+7-8)", "think"), True, True, True),
        ("<think>so</think> <answer>8*(4+7-8)</answer>", True, True, True),
        ("So it is\n8*(4+7-8)", False, True, False),
        (THINK.format_reply("so", "4*7-4"), False, False, True),
        (REASONING.format_reply("so", "8*(4+7-8)"), False, True, False),  # right, in the other layout's tags
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


class Recalling:
    """A policy that answers each question with its place in a list, and notes the batches."""

    def __init__(self, questions):
        self.questions, self.batches = questions, []

    def generate(self, prompts, limit, **sampling):
        asked = [prompt[-1]["content"] for prompt in prompts]
        self.batches.append(asked)
        return [
            Completion(REASONING.format_reply("so", str(self.questions.index(a))), (7,), False) for a in asked
        ]

    def rest(self):
        pass


def test_batches_go_by_length_and_answers_stay_in_order():
    questions = ["a long question " * (7 * i % 5) + str(i) for i in range(10)]
    rows = Dataset.from_list(
        [
            {"prompt": REASONING.build_messages(q), "question": q, "answer": str(i)}
            for i, q in enumerate(questions)
        ]
    )
    policy = Recalling(questions)
    graded = evaluate(policy, rows, load_recipe(eval_batch_size=4))
    assert [g.question for g in graded] == questions
    assert all(g.strict for g in graded)
    lengths = [len(question) for batch in policy.batches for question in batch]
    assert lengths == sorted(lengths)
    assert [len(batch) for batch in policy.batches] == [4, 4, 2]
    groups = sample_groups(policy, rows, load_recipe(), samples=3)
    assert [[g.question for g in group] for group in groups] == [[q] * 3 for q in questions]


def graded(*answers, gold="42"):
    rows = {"question": ["?"] * len(answers), "answer": [gold] * len(answers)}
    return grade(rows, [Completion(text, (7,), False) for text in answers], load_recipe())


def test_votes_are_for_answers_not_for_their_spelling():
    given = [
        g.given
        for g in graded(
            REASONING.format_reply("so", "1,080"), "so it is 1080.0", "$1080", "none", gold="1080"
        )
    ]
    assert given == ["1.08E+3", "1.08E+3", "1.08E+3", ""]


def test_samples_are_summed_over_problems():
    groups = [graded("42", "42", "41", "41"), graded("no number", "41", "41", "40")]
    summary = summarize_samples(groups)
    assert (summary["problems"], summary["samples"]) == (2, 4)
    assert [summary["pass"][k][0] for k in ("1", "2", "4")] == pytest.approx([0.25, (1 - 1 / 6) / 2, 0.5])
    assert summary["maj"]["4"][0] == pytest.approx(0.25)  # a tie in the first, none right in the second
    for value, low, high in summary["pass"].values():
        assert 0 <= low <= value <= high <= 1
    unjudged = [[replace(groups[0][0], right=None)] * 4]
    assert summarize_samples(groups + unjudged) == summary
    assert summarize_samples(unjudged)["problems"] == 0


def test_a_vote_is_for_the_block_and_not_for_a_number_after_it():
    (wrong,) = graded(REASONING.format_reply("so", "41") + "\nor is it 42")
    assert (wrong.lenient, wrong.right, wrong.given) == (True, False, "41")
    (bare,) = graded("it is 42")
    assert (bare.strict, bare.right, bare.given) == (False, True, "42")


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
