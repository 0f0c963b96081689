"""The checks before training find the planted problems."""

import importlib.util
from types import SimpleNamespace
from typing import ClassVar

import numpy
import pytest
import torch
from datasets import Dataset
from tokenizers import normalizers

from r1nb.errors import UserError
from r1nb.evaluation.checks import FLAWS, check_groups, check_rewards, check_text, flaw_table
from r1nb.policy.loading import load_policy
from r1nb.policy.policy import Completion
from r1nb.recipes.loading import load_recipe
from r1nb.rewards import registry
from r1nb.rewards.grading import make_judge
from r1nb.rewards.registry import Reward, reward
from r1nb.tasks.rows import load_rows, load_splits

ROWS = [{"question": "2*3?", "answer": "6", "solution": "2*3=6", "prompt": []}]


def check(rows=ROWS, **rewards):
    return check_rewards(Dataset.from_list(rows), make_judge(rewards))


def test_every_flaw_lowers_the_total_of_the_five_rewards():
    table = flaw_table(ROWS[0], load_recipe("tiny-five-rewards").judge())
    assert table.loc["ideal", "total"] == 4.0
    assert list(table.index) == ["ideal", *FLAWS]
    assert (table["total"].iloc[1:] < 4.0).all()


def test_the_check_finds_no_problem_in_real_gsm8k(gsm8k_dir):
    for split in ("train", "test"):
        assert check_rewards(load_rows(str(gsm8k_dir), split), load_recipe().judge()) == []


def test_the_demos_format_rewards_never_fire():
    found = check(demo_strict_format_reward_func=1.0, demo_soft_format_reward_func=1.0)
    assert ["never fires, not even on an ideal completion" in sentence for sentence in found] == [True, True]


def test_a_reward_that_pays_for_a_flaw_is_named():
    name = "correctness_reward_func"
    with registry.defined(
        Reward(lambda text, answer: 2.0 * (answer in text), 2.0, judges="answer", name=name)
    ):
        found = check(correctness_reward_func=1.0)
    assert any("the flaw 'no tags' as much as an ideal one" in sentence for sentence in found)
    assert any("the flaw 'two answers'" in sentence for sentence in found)


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


def test_rows_without_a_gold_are_not_reported():
    assert check([ROWS[0] | {"answer": ""}], correctness_reward_func=1.0) == []


def test_an_unreachable_judge_is_reported_and_not_scored_as_0():
    settings = {"judge_url": "http://127.0.0.1:9", "judge_model": "any"}
    judge = make_judge({"judge_reward_func": 1.0, "soft_format_reward_func": 1.0}, **settings)
    (found,) = check_rewards(Dataset.from_list(ROWS), judge)
    assert flaw_table(ROWS[0] | {"question": "?"}, judge).loc["ideal", "total"] == 0.5
    assert found.startswith("judge_reward_func gave no score for an ideal completion: the judge could not be")


@pytest.mark.parametrize(
    ("name", "library"), [("math", "math_verify"), ("judge", "openai"), ("gym", "reasoning_gym")]
)
def test_a_missing_library_is_named_when_the_recipe_is_loaded(monkeypatch, name, library):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == library else find(wanted)
    )
    with pytest.raises(UserError, match=f"{name}_reward_func needs {library}, which is missing: pip install"):
        load_recipe(rewards={f"{name}_reward_func": 1.0}, judge_url="http://127.0.0.1:9", judge_model="any")


class Scripted:
    """A policy that answers from a list, to plant the problems that the check must find."""

    end_tokens: ClassVar = []

    def __init__(self, texts, cut=False):
        self.texts, self.cut, self.tokenizer = texts, cut, self

    def __call__(self, text, **options):  # its tokens are characters
        return SimpleNamespace(input_ids=list(text))

    def apply_chat_template(self, messages, **options):
        return "".join(message["content"] for message in messages)

    def _completion(self, ids, prefill):
        return Completion("".join(ids), tuple(ids), False)

    def generate(self, prompts, *args, **kwargs):
        return [Completion(self.texts[i % len(self.texts)], (7,) * 3, self.cut) for i in range(len(prompts))]

    def rest(self):
        pass


def test_the_check_of_groups_names_the_problem(tiny_recipe):
    recipe = tiny_recipe
    train = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]
    ideal = "<reasoning>\nx\n</reasoning>\n<answer>\n-1\n</answer>"
    assert "nothing to choose from" in check_groups(Scripted(["no tags"]), train, recipe)[0]
    (silent,) = check_groups(Scripted([ideal, "no tags"]), train, recipe)
    assert silent.endswith("never fired: correctness_reward_func.")
    assert "cut off at 112 tokens" in check_groups(Scripted(["no"], cut=True), train, recipe)[-1]
    half = [ideal, *(ideal.replace("-1", str(n)) for n in range(400))]
    assert not check_groups(Scripted(half), train, recipe, groups=60)


def with_special_tags(policy):
    policy.tokenizer.add_special_tokens({"extra_special_tokens": ["<reasoning>", "</answer>"]})


def with_begun_reply(policy):
    policy.tokenizer.chat_template += "{{ '<reasoning>\n' }}"


def without_system(policy):
    policy.tokenizer.chat_template = "{{ messages[-1].content }}"


def with_end_in_the_reply(policy):
    line_break = policy.tokenizer.convert_tokens_to_ids(policy.tokenizer.tokenize("\n"))
    policy.model.generation_config.eos_token_id = [2, *line_break]


def in_small_letters(policy):
    policy.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


LOST = {
    with_special_tags: "(<reasoning> is missing)",
    with_begun_reply: "(<reasoning> is missing), since the prompt ends with <reasoning>",
    without_system: "The chat template drops text of the system message: the policy does not read it.",
    with_end_in_the_reply: "reaches the rewards as '<reasoning>' ... '<reasoning>' (</reasoning> is missing)",
    in_small_letters: "(other characters)",
}


@pytest.mark.parametrize("plant", LOST, ids=lambda plant: plant.__name__)
def test_text_that_is_lost_between_policy_and_rewards_is_named(tiny_recipe, plant):
    policy = load_policy(tiny_recipe)
    row = load_rows("bundled", "train")[0]
    assert check_text(policy, row, tiny_recipe.layout) == []
    plant(policy)
    (sentence,) = check_text(policy, row, tiny_recipe.layout)
    assert LOST[plant] in sentence
    assert "\n" not in sentence


def test_a_reward_that_lacks_its_column_is_named(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", dict(registry._OWN))

    @reward(high=1.0)
    def hint_reward_func(text, answer, hint):
        return float(hint in text)

    with pytest.raises(UserError, match="hint_reward_func needs hint: a column of the dataset"):
        check(hint_reward_func=1.0)
    check([row | {"hint": "six"} for row in ROWS], hint_reward_func=1.0)


@pytest.mark.parametrize(
    "score",
    [float("nan"), float("inf"), -float("inf"), "1.0", "good", b"1", [1.0], {}, numpy.ones(2), numpy.ones(1),
     numpy.float32("nan"), 1j, (1.0, "why", "more"), (float("nan"), "why"), ("x", "why"), print, 10**400],
)  # fmt: skip
def test_a_reward_that_returns_no_finite_number_is_named(score):
    shaky = Reward(lambda text, answer: score, 1.0)
    with pytest.raises(
        UserError, match=r"<lambda> returned .* for 'some text': it must return a finite number"
    ):
        shaky.score("some text", "1")
    with pytest.raises(UserError, match="it must return"):
        shaky(["some text", "more"], answer=["1", "2"])


@pytest.mark.parametrize(
    "one", [1, True, numpy.float32(1), numpy.int64(1), numpy.bool_(True), torch.tensor(1.0)]
)
def test_a_reward_may_return_any_kind_of_number(one):
    assert Reward(lambda text, answer: one, 1.0)(["a", "b"], answer=["1", "2"]) == [1.0, 1.0]
    assert Reward(lambda text, answer: (one, "why"), 1.0).explain("a") == (1.0, "why")
    assert Reward(lambda text, answer: (None, "why"), 1.0).explain("a") == (None, "why")


@pytest.mark.parametrize(
    "columns", [{"nums": [2, 3]}, {"nums": 5, "target": 5}, {"nums": "2, 3", "target": 5}]
)
def test_a_column_called_nums_need_not_be_countdowns(columns):
    assert check([ROWS[0] | columns], correctness_reward_func=1.0) == []


def test_golds_of_countdown_with_many_numbers_are_not_searched_for():
    row = {"answer": "987654", "nums": [1, 1, 1, 1, 1, 1, 9], "target": 987654}
    assert check([ROWS[0] | row] * 200, countdown_reward_func=1.0) == []
