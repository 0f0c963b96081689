"""Ask, Sample a group and One step answer a press with the real tiny policy, and an error is one sentence."""

import pytest
import torch

from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.policy import Completion
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import REASONING
from r1nb.widgets.ask import Ask
from r1nb.widgets.one_step import NOTHING, OneStep
from r1nb.widgets.press import Press
from r1nb.widgets.sample import SampleGroup


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("tiny-cpu", torch_threads=1, max_completion_length=48)


@pytest.fixture(scope="module")
def row():
    return load_rows("bundled", "train")[0]


@pytest.fixture
def policy(recipe):
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    return policy


def test_a_button_is_disabled_while_it_works_and_shows_errors_in_one_sentence():
    seen = []

    def work():
        seen.append((press.button.disabled, press.button.description))
        raise RuntimeError("<b>broken\nat line 2")

    press = Press("Go", "Working ...", work)
    press.button.click()
    assert seen == [(True, "Working ...")]
    assert (press.button.disabled, press.button.description) == (False, "Go")
    assert "RuntimeError: &lt;b&gt;broken</span>" in press.said.value


def test_ask_answers_with_base_and_adapter_and_shows_the_prompt_on_demand(policy, recipe):
    ask = Ask(policy, recipe.layout, recipe.greedy, "What is 3 + 4?")
    assert ask.prompt.value == ""
    ask.whole.value = True
    assert "Respond in the following format:" in ask.prompt.value
    ask.question.value = "What is 3 + 5?"
    assert "What is 3 + 5?" in ask.prompt.value
    ask.count.value = 3
    ask.ask.press()
    assert "<b>base</b>" in ask.answers.value
    assert "<b>adapter</b>" in ask.answers.value
    assert ask.answers.value.count(" tokens") == 2
    assert "all answers are the same" in ask.ask.said.value
    ask.temperature.value = 1.0
    ask.ask.press()
    assert ask.answers.value.count(" tokens") == 6
    assert ask.ask.said.value == ""


def test_ask_has_one_column_without_an_adapter(recipe):
    ask = Ask(load_policy(recipe), recipe.layout, recipe.greedy, "What is 3 + 4?")
    ask.ask.press()
    assert "<b>model</b>" in ask.answers.value
    assert "base" not in ask.answers.value


@pytest.mark.parametrize(("question", "words"), [(" ", "Write a question"), ("9 " * 999, "shorten")])
def test_a_question_that_cannot_be_asked_is_refused_in_a_sentence(policy, recipe, row, question, words):
    for widget in (Ask(policy, recipe.layout, recipe.greedy), SampleGroup(policy, recipe, row)):
        widget.question.value = question
        press = widget.ask if isinstance(widget, Ask) else widget.sample
        press.press()
        assert words in press.said.value


def test_a_hostile_question_and_answer_are_escaped(policy, recipe, monkeypatch):
    hostile = "<script>x</script><answer><img src=x>"
    monkeypatch.setattr(policy, "generate", lambda prompts, *_, **__: [Completion(hostile, (1,), True)])
    ask = Ask(policy, REASONING, Sampling(8), hostile)
    ask.whole.value = True
    ask.ask.press()
    for shown in (ask.answers.value, ask.prompt.value):
        assert "&lt;script&gt;" in shown
        assert "<script" not in shown
        assert "<img" not in shown
    assert "cut off" in ask.answers.value


def test_a_group_shows_which_are_right_how_many_distinct_answers_and_its_lengths(policy, recipe, row):
    sample = SampleGroup(policy, recipe, row)
    sample.count.value = 6
    sample.sample.press()
    first = sample.graded
    assert len(first) == 6
    assert "of 6 right" in sample.facts.value
    assert "distinct answers" in sample.facts.value
    marks = sample.facts.value.split("</p>")[1]
    assert marks.count("✓") + marks.count("✗") == 6
    assert sample.completions.value.count("advantage") == 0
    assert sample.completions.value.count("<tr>") == 6
    sample.sample.press()
    assert sample.graded != first  # each press draws anew


def test_other_columns_of_the_row_belong_to_its_question_only(recipe):
    countdown = load_recipe(
        "countdown-cpu", torch_threads=1, model_name="tiny-policy", max_completion_length=16
    )
    sample = SampleGroup(load_policy(countdown), countdown, load_rows("bundled-countdown", "train")[0])
    sample.sample.press()
    assert sample.sample.said.value == ""
    sample.question.value += " Please."
    sample.sample.press()
    assert "countdown_reward_func needs nums and target" in sample.sample.said.value


def test_one_step_steps_again_and_undoes(policy, recipe, row):
    one = OneStep(policy, recipe, row)
    weights = [weight.detach().clone() for weight in one.steps.weights]
    one.sampler.sample.press()
    assert len(one.rewards) == recipe.group_size
    one.rewards[0].value = 5.0
    one.undo.press()
    assert "no step to undo" in one.undo.said.value
    one.step.press()
    assert one.step.said.value == ""
    assert "Steps taken: 1" in one.said.value
    assert "0.0015" in one.said.value
    assert "before" in one.notes[0].value
    assert "after" in one.notes[0].value
    (before, after) = one.seen
    assert after[0] > before[0]
    one.step.press()
    assert len(one.seen) == 3
    one.sampler.sample.press()  # another group: the steps can still be undone
    assert len(one.seen) == 1
    one.undo.press()
    one.undo.press()
    assert "Steps taken: 0" in one.said.value
    assert all(map(torch.equal, one.steps.weights, weights))


def test_one_step_says_that_equal_rewards_teach_nothing(policy, recipe, row):
    one = OneStep(policy, recipe, row)
    one.sampler.sample.press()
    for reward in one.rewards:
        reward.value = 2.0
    assert NOTHING in one.said.value
    one.step.press()
    assert "momentum" in one.said.value
    assert one.seen[0] == one.seen[1]
    one.rewards[3].value = 0.0
    assert NOTHING not in one.said.value
    assert "advantage <b>-2.4" in one.notes[3].value
