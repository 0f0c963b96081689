"""check_reward finds planted holes, leaves sound rewards in peace, and shows what a policy learns."""

import threading

import make_reward_checks
import pandas
import pytest
from datasets import Dataset, DatasetDict
from make_reward_checks import blocks, exact, number, texts
from transformers import TrainerState  # noqa: F401  # imported now: a short time limit must not interrupt it

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate
from r1nb.rewards import five, registry
from r1nb.rewards.registry import reward, reward_names
from r1nb.training import attack
from r1nb.training.attack import check_reward

ROWS = make_reward_checks.rows_for("")
# Words of the sentence that names each hole.
NAMED = {
    "any_number": "1 for a wrong answer and 1 for a right one", "length": "a longer wrong answer",
    "tag_alone": "1 for a wrong answer", "substring": "for 10800", "no_sign": "for -1080",
    "anywhere": "the gold in the reasoning", "each_block": "three times", "raises": "IndexError",
    "too_few": "0 scores for 1", "no_comma": "for 1,080", "near": "for 1100", "whole_part": "for 1080.4",
    "percent": "for 108000", "not_a_number": "for NaN", "evaluates": "for __import__",
    "missing_is_zero": "if the gold is 0", "gold_as_pattern": "for 125", "any_block": "then a wrong one",
    "pleases": "words such as", "first_gold": "alone for the same", "backtracks": "It takes more than",
}  # fmt: skip


def share(completions, answer, **_):
    return [score / len(completions) for score in exact(completions, answer)]


def in_order(completions, answer, **_):
    return sorted(exact(completions, answer))


def overwrites(completions, answer, **_):
    scores = exact(completions, answer)
    completions[0][0]["content"] = ""
    return scores


def narrow(completions, answer, **_):
    pairs = zip(texts(completions), answer, strict=True)
    return [float(f"<answer>\n{gold}\n</answer>" in text.replace(",", "")) for text, gold in pairs]


def copies(completions, answer, question, **_):
    scores = zip(exact(completions, answer), texts(completions), question, strict=True)
    return [score or 0.5 * bool(set(blocks(text)) & set(asked.split())) for score, text, asked in scores]


def silent(completions, answer, **_):
    scores = zip(exact(completions, answer), texts(completions), strict=True)
    return [score or -float("<answer>" in text) for score, text in scores]


def once(completions, answer, seen=[], **_):  # noqa: B006
    scores = zip(exact(completions, answer), texts(completions), strict=True)
    scores = [score * (text not in seen) for score, text in scores]
    seen += texts(completions)
    return scores


def spelled(completions, answer, **_):
    return [float([gold] == blocks(text)) for text, gold in zip(texts(completions), answer, strict=True)]


@pytest.mark.parametrize("hole", make_reward_checks.HOLES, ids=lambda hole: hole.__name__)
def test_a_planted_hole_is_named(hole, monkeypatch):
    monkeypatch.setattr(attack, "STUCK", 0.2)
    found = check_reward(hole, ROWS)
    assert any(NAMED[hole.__name__] in problem for problem in found.problems), found.problems
    assert list(found.table.columns) == ["attack", "score", "should earn"]


@pytest.mark.parametrize(
    ("hole", "named"),
    [(share, "alone for the same"), (in_order, "alone for the same"), (overwrites, "changes the compl"),
     (narrow, "between spaces"), (copies, "a number of the question"), (silent, "an empty completion"),
     (once, "on earlier calls")],
)  # fmt: skip
def test_more_holes_are_named(hole, named):
    problems = check_reward(hole, ROWS).problems
    assert any(named in problem for problem in problems), problems


def test_a_reward_of_words_must_not_depend_on_small_and_capital_letters():
    (problem,) = check_reward(
        spelled, [{"question": "Where?", "answer": "Paris"}, {"answer": "Rome"}]
    ).problems
    assert "letters exchanged" in problem


def test_the_worst_problem_comes_first():
    problems = check_reward(make_reward_checks.raises, ROWS).problems
    assert ["IndexError" in problem for problem in problems] == [True, False]


@pytest.mark.parametrize(
    "own", [*make_reward_checks.SOUND, *make_reward_checks.shipped()], ids=lambda own: own.__name__
)
def test_sound_rewards_are_left_in_peace(own):
    assert check_reward(own, make_reward_checks.rows_for(own.__name__)).problems == []


def test_a_sound_reward_of_the_user_is_left_in_peace(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", dict(registry._OWN))

    @reward(high=1.0, block=True)
    def sound_reward_func(given: str, answer: str):
        return float(given.replace(",", "") == answer)

    assert check_reward(sound_reward_func, ROWS).problems == []


def typed(completions, answer, **_):
    """1 if the answer is the gold: a number, or one of a list of texts."""
    pairs = zip(texts(completions), answer, strict=True)
    return [
        float(any(b in gold if isinstance(gold, list) else number(b) == gold for b in blocks(text)[-1:]))
        for text, gold in pairs
    ]


@pytest.mark.parametrize(
    ("function", "golds"),
    [(exact, ["24", "7"]), (exact, ["98765"]), (typed, [24, 0]), (typed, [0]), (typed, [2.5]),
     (typed, [["24", "24.0"], ["7"]]), ("correctness_reward_func", [24.0]), ("math_reward_func", [["24"]])],
)  # fmt: skip
def test_golds_of_any_type_and_rows_of_any_form(function, golds):
    rows = [{"question": "What is 4 times 6?", "answer": gold} for gold in golds]
    data = Dataset.from_list(rows)
    for form in (rows, rows[0], pandas.DataFrame(rows), DatasetDict(train=data), data):
        assert check_reward(function, form).problems == []


@pytest.mark.parametrize(
    ("function", "rows", "layout", "sentence"),
    [
        (None, ROWS, "think", "None is not a reward"), ([exact], ROWS, "think", "is not a reward"),
        ("int_reward", ROWS, "think", "Unknown reward 'int_reward'"), (exact, ROWS, "thnk", "'thnk'"),
        (exact, ROWS, 5, "layout = 5 is unknown"), (exact, [{"solution": "2"}], "think", "No row has a gold"),
        (exact, [{"answer": ""}, {"answer": float("nan")}], "think", "No row has a gold"),
        (exact, None, "think", "No row has a gold"), (exact, "bundled", "think", "No row has a gold"),
    ],
)  # fmt: skip
def test_what_is_no_reward_no_layout_or_no_rows_is_refused(function, rows, layout, sentence):
    with pytest.raises(UserError, match=sentence):
        check_reward(function, rows, layout)


def test_a_layout_may_be_a_name():
    def thinks(completions, answer, **_):
        scores = zip(exact(completions, answer), texts(completions), strict=True)
        return [score * text.startswith("<think>") for score, text in scores]

    assert check_reward(thinks, ROWS, layout="think").problems == []
    assert "1 for a right one" not in check_reward(thinks, ROWS).problems[0]


def test_a_reward_that_hangs_is_stopped_in_another_thread_too(monkeypatch):
    monkeypatch.setattr(attack, "STUCK", 0.2)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(check_reward(make_reward_checks.backtracks, ROWS, steps=1))
    )
    thread.start()
    thread.join()
    assert "It takes more than 0.2 seconds" in found[0].problems[0]
    assert found[0].learned == []


def test_it_shows_what_the_tiny_policy_learns_and_grades_that_whatever_the_rewards_name_is(monkeypatch):
    judges, names = [], reward_names()

    def few(policy, rows, judge, *sampling):
        judges.append(judge.answer)
        return evaluate(policy, rows.select(range(4)), judge, *sampling)

    def correctness_reward_func(completions, **_):
        return [1.0 for _ in completions]

    monkeypatch.setattr(attack, "evaluate", few)
    found = check_reward(correctness_reward_func, ROWS, steps=1)
    assert 1 <= len(found.learned) <= 3
    assert judges == [five.correctness_reward_func] * 2
    assert reward_names() == names  # the attack leaves no name behind


def test_a_reward_that_fails_is_not_trained_on():
    assert check_reward(make_reward_checks.raises, ROWS, steps=3).learned == []
