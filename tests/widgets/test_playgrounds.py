"""The playgrounds update when text is typed, and escape markup in it."""

import pytest

from r1nb.recipes.loading import load_recipe
from r1nb.text.prompts import REASONING
from r1nb.views.html import colored
from r1nb.widgets.playgrounds import group_playground, reward_playground

IDEAL = REASONING.format_reply("6*12=72", "72")


def test_a_reward_playground_updates_with_the_completion_and_the_gold():
    playground = reward_playground(load_recipe("tiny-five-rewards").judge(), IDEAL, {"answer": "72"})
    text, gold, shown = playground.children
    assert "72 equals the gold 72" in shown.value
    assert "4.000" in shown.value
    gold.value = "73"
    assert "72 is not the gold 73" in shown.value
    text.value = "72"
    assert "no answer to read: no tags at all" in shown.value


def test_a_group_playground_updates_with_its_completions():
    playground = group_playground(
        load_recipe("tiny-five-rewards").judge(), [IDEAL, "72", "72", "72"], {"answer": "72"}
    )
    *pairs, gold, summary = playground.children
    assert "reward 4.000<br>advantage +1.50" in pairs[0].children[1].value
    assert "mean 1.000, deviation 2.000" in summary.value
    pairs[0].children[0].value = "72"
    assert "all earn the same" in summary.value
    assert "advantage +0.00" in pairs[0].children[1].value
    gold.value = "1"
    assert "all earn the same" in summary.value


def test_other_columns_reach_the_rewards():
    recipe = load_recipe(rewards={"countdown_reward_func": 1.0, "overlong_reward_func": 1.0})
    row = {"answer": "24", "nums": [4, 6], "target": 24}
    playground = reward_playground(recipe.judge(row), REASONING.format_reply("so", "4*6"), row)
    assert "equals 24" in playground.children[2].value


@pytest.mark.parametrize(
    "text", ["<script>x</script>", REASONING.format_reply("<b>&", "<img src=x>"), "<answer>\n<i>"]
)
def test_typed_markup_is_escaped(text):
    shown = colored(text, REASONING)
    assert not any(tag in shown for tag in ("<script", "<b>", "<img", "<i>\n", "<answer>"))


def test_the_parts_of_a_completion_are_coloured():
    shown = colored("Hi " + IDEAL, REASONING)
    assert shown.count("rgba(0,114,178,.30)") == 4  # the tags
    assert shown.count("rgba(0,158,115,.30)") == 1  # the answer
    assert shown.count("rgba(213,94,0,.30)") == 1  # the text before the tags
