"""The check before training finds what is planted."""

import importlib.util

import pytest
from datasets import Dataset

from r1nb.errors import UserError
from r1nb.evaluation.checks import FAULTS, check_rewards, fault_table
from r1nb.recipes.recipe import load_recipe
from r1nb.rewards.registry import reward
from r1nb.tasks.rows import load_rows

ROWS = [{"question": "2*3?", "answer": "6", "solution": "2*3=6", "prompt": []}]


def check(rows=ROWS, **rewards):
    return check_rewards(Dataset.from_list(rows), load_recipe(rewards=rewards))


def test_every_fault_costs_the_five_something():
    table = fault_table(ROWS[0], load_recipe())
    assert table.loc["ideal", "total"] == 4.0
    assert list(table.index) == ["ideal", *FAULTS]
    assert (table["total"].iloc[1:] < 4.0).all()


def test_nothing_is_wrong_with_real_gsm8k(gsm8k_dir):
    for split in ("train", "test"):
        assert check_rewards(load_rows(str(gsm8k_dir), split), load_recipe()) == []


def test_the_demos_rewards_never_fire():
    found = check(demo_strict_format_reward_func=1.0, demo_soft_format_reward_func=1.0)
    assert ["never fires, not even on an ideal completion" in sentence for sentence in found] == [True, True]


def test_a_reward_that_pays_for_a_fault_is_named(monkeypatch):
    spoilt = dict(REWARDS)
    monkeypatch.setattr("r1nb.rewards.registry.REWARDS", spoilt)
    monkeypatch.setattr("r1nb.rewards.REWARDS", spoilt)

    @reward(high=2.0, judges="answer")
    def correctness_reward_func(text, answer):
        return 2.0 if answer in text else 0.0

    found = check(correctness_reward_func=1.0)
    assert any("the fault 'no tags' as much as an ideal one" in sentence for sentence in found)
    assert any("the fault 'two answers'" in sentence for sentence in found)


def test_golds_that_cannot_earn_full_marks_are_counted():
    rows = [ROWS[0], ROWS[0] | {"answer": "<answer>7</answer>"}, ROWS[0] | {"answer": "8"}]
    (found,) = check(rows, correctness_reward_func=1.0)
    assert found.startswith("1 of 3 golds earn less than full marks from correctness_reward_func")
    assert "<answer>7</answer>" in found


def test_a_first_gold_of_the_wrong_kind_is_explained():
    found = check([ROWS[0] | {"answer": "<answer>"}], correctness_reward_func=1.0)
    assert found[0].startswith(
        "correctness_reward_func pays 0 of 2 for an ideal completion: no answer to read"
    )


def test_golds_that_math_verify_cannot_read_are_counted():
    rows = [ROWS[0] | {"answer": answer} for answer in (r"\frac{1}{2}", r"\frac{1}{", "6")]
    (found,) = check(rows, math_reward_func=1.0)
    assert found.startswith("1 of 3 golds earn less than full marks from math_reward_func")


def test_rows_without_any_gold_are_not_blamed():
    assert check([ROWS[0] | {"answer": ""}], correctness_reward_func=1.0) == []


def test_a_judge_out_of_reach_is_said_not_punished():
    settings = {"judge_url": "http://127.0.0.1:9", "judge_model": "any"}
    recipe = load_recipe(rewards={"judge_reward_func": 1.0, "soft_format_reward_func": 1.0}, **settings)
    (found,) = check_rewards(Dataset.from_list(ROWS), recipe)
    assert fault_table(ROWS[0] | {"question": "?"}, recipe).loc["ideal", "total"] == 0.5
    assert found.startswith("judge_reward_func gave no score for an ideal completion: the judge could not be")


@pytest.mark.parametrize(
    ("name", "library"), [("math", "math_verify"), ("judge", "openai"), ("gym", "reasoning_gym")]
)
def test_a_missing_library_is_said_with_the_recipe(monkeypatch, name, library):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == library else find(wanted)
    )
    with pytest.raises(UserError, match=f"{name}_reward_func needs {library}, which is missing: pip install"):
        load_recipe(rewards={f"{name}_reward_func": 1.0}, judge_url="http://127.0.0.1:9", judge_model="any")
