"""Each shipped reward can be imported, found by name, called as TRL does, and used in plain TRL."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import r1nb.rewards
from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.rewards import registry
from r1nb.rewards.registry import SHIPPED, Reward, find_reward, reward, reward_names
from r1nb.text.prompts import REASONING, THINK

NAMES = [name for names in SHIPPED.values() for name in names]
NOBODY = "http://127.0.0.1:9/v1"  # no server runs there
OPTIONS = {
    "overlong_reward_func": {"max_completion_length": 9, "overlong_cache": 2},
    "language_reward_func": {"language": "en"},
    "judge_reward_func": {"judge_url": NOBODY, "judge_model": "any"},
}
IDEAL = REASONING.format_reply("We add:\n1 + 6 = 7", "1 + 6")


def test_the_table_lists_the_rewards_that_the_modules_define():
    found = {}
    for path in Path(registry.__file__).parent.glob("[a-z]*.py"):
        module = importlib.import_module(f"r1nb.rewards.{path.stem}")
        made = {name: value for name, value in vars(module).items() if isinstance(value, Reward)}
        here = [name for name, value in made.items() if value.function.__module__ == module.__name__]
        found |= {path.stem: here} if here else {}
    assert {module: sorted(names) for module, names in found.items()} == {
        module: sorted(names) for module, names in SHIPPED.items()
    }
    assert reward_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_reward_is_found_by_name_and_in_the_package(name):
    assert getattr(r1nb.rewards, name) is find_reward(name)
    assert name in r1nb.rewards.__all__
    assert name in dir(r1nb.rewards)
    assert find_reward(name).__name__ == name
    assert find_reward(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_each_reward_can_be_called_as_trl_does(name, request):
    if name == "gym_reward_func":
        request.getfixturevalue("gym")
    func = getattr(r1nb.rewards, name).bind(**OPTIONS.get(name, {}))
    messages = [[{"role": "user", "content": "What is 1 + 6?"}]] * 2
    columns = {"answer": ["7", "7"], "question": ["What?"] * 2, "nums": [[1, 6]] * 2, "target": [7, 7]}
    columns |= {"problem": ["chain_sum:0"] * 2, "completion_ids": [[5, 6, 7]] * 2}
    nothing = {"trainer_state": None, "log_extra": None, "log_metric": None, "environments": None}
    chats = [[{"role": "assistant", "content": text}] for text in (IDEAL, "no idea")]
    as_chat = func(prompts=messages, completions=chats, **columns, **nothing)
    as_text = func(prompts=["What is 1 + 6?"] * 2, completions=[IDEAL, "no idea"], **columns, **nothing)
    assert as_chat == as_text
    expected = type(None) if name == "judge_reward_func" else float
    assert [type(score) for score in as_text] == [expected] * 2


@pytest.mark.parametrize(
    ("name", "columns", "missing"),
    [
        ("overlong_reward_func", {"completion_ids": [[1]]}, "max_completion_length and overlong_cache"),
        ("judge_reward_func", {"question": ["What?"]}, "judge_url and judge_model"),
        ("countdown_reward_func", {"nums": [[1, 6]]}, "target"),
    ],
)
def test_a_missing_option_or_column_is_named_in_one_sentence(name, columns, missing):
    option = missing.split()[-1]
    with pytest.raises(UserError) as error:
        find_reward(name)(prompts=["What?"], completions=[IDEAL], answer=["7"], **columns)
    assert str(error.value) == (
        f"{name} needs {missing}: a column of the dataset, or an option that .bind({option}=...) sets; "
        f"the columns are: {', '.join(sorted([*columns, 'prompts']))}."
    )


def test_an_unknown_language_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"^language = 'klingon' is unknown: use one of ar, de, .*, zh\.$"):
        find_reward("language_reward_func").bind(language="klingon")(completions=["nuqneH"])


def test_a_reward_in_plain_trl_needs_no_recipe(tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from r1nb.rewards import (
        correctness_reward_func,
        countdown_reward_func,
        overlong_reward_func,
        steps_reward_func,
        strict_format_reward_func,
    )

    funcs = [correctness_reward_func, strict_format_reward_func, countdown_reward_func, steps_reward_func]
    funcs.append(overlong_reward_func.bind(max_completion_length=12, overlong_cache=12))
    rows = Dataset.from_list(
        [{"prompt": REASONING.build_messages(f"What is {n}+6?"), "answer": str(n + 6), "nums": [n, 6],
          "target": n + 6} for n in range(1, 5)]
    )  # fmt: skip
    args = GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=8, num_generations=4,
        max_completion_length=12, use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(str(DATA / "tiny-policy"), funcs, args=args, train_dataset=rows)
    trainer.train()
    logs = [line for line in trainer.state.log_history if "reward" in line]
    assert len(logs) == 2
    for line in logs:
        paid = [line[f"rewards/{func.__name__}/mean"] for func in funcs]
        assert line["reward"] == pytest.approx(sum(paid), abs=1e-5)
        assert -1 <= paid[-1] < 0  # completions of 2 to 12 tokens are penalised


def printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_rewards_loads_no_large_library():
    code = """
import sys
from r1nb.rewards import correctness_reward_func, math_reward_func, overlong_reward_func, gym_reward_func
print(correctness_reward_func(completions=["7"], answer=["7"]))
print({"torch", "trl", "transformers", "openai", "sympy", "reasoning_gym"} & set(sys.modules))
"""
    assert printed(code) == "[0.0]\nset()\n"


def test_your_own_reward_cannot_have_the_name_of_a_shipped_one():
    with pytest.raises(
        UserError, match="math_reward_func is a reward that ships with r1nb: give yours anoth"
    ):

        @reward(high=3.0)
        def math_reward_func(text, answer):
            return 3.0


def test_your_own_reward_is_found_by_its_name(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})

    @reward(high=3.0)
    def brevity_reward_func(text, answer, nums, most=5):
        return 3.0 if len(text) < most + len(nums) else 0.0

    assert reward_names() == [*NAMES, "brevity_reward_func"]
    func = find_reward("brevity_reward_func")
    assert func is brevity_reward_func
    assert func(completions=["a", "abcde"], nums=[[1]] * 2) == [3.0, 3.0]
    assert func.bind(most=1)(completions=["a", "abcde"], nums=[[1]] * 2) == [3.0, 0.0]
    with pytest.raises(UserError, match=r"^Unknown reward 'brevty_reward_func'; did you mean 'brevity_rew"):
        find_reward("brevty_reward_func")


def test_your_own_reward_can_ask_for_the_answer_block(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})

    @reward(high=1.0, block=True)
    def even_reward_func(given, answer):
        return 1.0 - int(given) % 2

    texts = [REASONING.format_reply("so", " 4 "), REASONING.format_reply("so", "5"), "4"]
    assert even_reward_func(completions=texts) == [1.0, 0.0, 0.0]
    assert even_reward_func.explain("4") == (0.0, "no answer to read: no tags at all")
    think = even_reward_func.bind(layout=THINK)
    assert think(completions=[texts[0], THINK.format_reply("so", "4")]) == [0.0, 1.0]


def test_columns_may_have_the_names_of_parameters(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})

    @reward(high=1.0)
    def odd_reward_func(completion, gold, text, prompt):
        return float(text == "x" and prompt == "What?")

    columns = {"text": "x", "self": 1, "function": 1, "columns": 1, "options": 1}
    assert odd_reward_func.score("7", "7", prompt="What?", **columns) == 1.0
    assert find_reward("xmlcount_reward_func").score("7", "7", **columns) == 0.0
    batch = {name: [value] for name, value in columns.items() if name != "self"} | {"answer": ["y"]}
    assert odd_reward_func(prompts=["What?"], completions=["7"], **batch) == [1.0]
    assert odd_reward_func.reads == {"answer", "text", "prompt"}


def test_a_reason_goes_with_every_score(gym):
    for name in NAMES:
        if name.startswith("demo") or name == "judge_reward_func":
            continue
        columns = {"nums": [1], "target": 1, "problem": "chain_sum:0", "completion_ids": [1]}
        options = {"max_completion_length": 9, "overlong_cache": 2}
        for text in ("", REASONING.format_reply("1+0=1", "1")):
            score, reason = find_reward(name).explain(text, "1", **columns, **options)
            assert isinstance(score, float), name
            assert reason, name
            assert json.dumps(reason)
