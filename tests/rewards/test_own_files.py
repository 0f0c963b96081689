"""Rewards of the user's own: what a file may hold, what it may import, and what is refused."""

import copy
import dataclasses
import sys

import pytest
import yaml

from r1nb.errors import UserError
from r1nb.recipes.loading import load_recipe
from r1nb.rewards import own
from r1nb.rewards.own import TrlReward, hashes, keep_copies, load_own
from r1nb.rewards.registry import Reward, find_reward, reward, short_name
from r1nb.tasks.rows import load_splits
from r1nb.views.code import training_code

FILE = """
from __future__ import annotations
import asyncio
import functools
import sys
from dataclasses import dataclass
from r1nb.rewards import reward

FREE = asyncio.Semaphore(1)

@dataclass
class Weight:
    value: float = 1.0
    def __call__(self, completions):
        return [self.value] * len(completions)

instance = Weight()

@reward(high=1.0, judges="answer")
def correctness_reward_func(text, answer):
    return 1.0

def with_prompts(function):
    @functools.wraps(function)
    def wrapped(prompts, completions, **columns):
        return function(completions, columns["answer"])
    return wrapped

@with_prompts
def decorated(completions, answer):
    return [float(bool(gold)) for gold in answer]

def metric(completions, log_metric):
    log_metric(name="mine", value=1.0)
    return [1.0] * len(completions)

def extra(completions, log_extra):
    log_extra(column="guess", values=["a"] * len(completions))
    return [1.0] * len(completions)

def state(completions, trainer_state, **_):
    return [1.0 - trainer_state.global_step / trainer_state.max_steps] * len(completions)

def last(completions, completion_ids):
    return [1.0 + ids[-1] for ids in completion_ids]

def lazy(completions):
    from util import POINTS
    return [POINTS] * len(completions)

async def one(completion):
    async with FREE:
        await asyncio.sleep(0.001)
        return 1.0

async def busy(completions):
    return await asyncio.gather(*map(one, completions))

def huge(completions):
    return [1e39] * len(completions)

def negative(completions):
    return [-1e60] * len(completions)

def mapping(completions):
    return dict.fromkeys(range(len(completions)), 1.0)

def exits(completions):
    sys.exit("no judge")

def level(completions, level):
    return level

def logs_answer(completions, log_extra):
    log_extra("answer", completions)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with my.py and the module util, which is not the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "_HELPERS", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "util", raising=False)
    write(tmp_path / "a", "my.py", FILE)
    write(tmp_path / "a", "util.py", "POINTS = 1.0\n")
    return tmp_path / "a"


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    "name",
    ["instance", "correctness_reward_func", "decorated", "metric", "extra", "state", "last", "lazy", "busy"],
)
def test_what_trl_takes_is_scored(folder, name):
    made = load_own(f"a/my.py:{name}")
    for _ in range(2):  # a lock works in the second batch, too
        assert made(["a", "b"], answer=["1", "1"]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("huge", r"returned 1e\+39 for 'a': it must return a finite number \(at most 1e\+18\)"),
        ("negative", r"returned -1e\+60 for 'a': it must return a finite number \(at most 1e\+18\)"),
        ("mapping", "returned a dict for 2 completions: return a list with one number for each"),
        ("exits", r"failed on \['a'\] \(SystemExit: no judge\)"),
        ("level", "argument: 'level'.: correct the function; it can read the columns answer, question"),
        ("logs_answer", r"calls log_extra\('answer', ...\), but the log has this column already: choose"),
        ("Weight", "my.py:Weight is a class: name a function, or an instance"),
    ],
)
def test_a_mistake_becomes_one_sentence(folder, name, words):
    with pytest.raises(UserError, match=words):
        load_own(f"a/my.py:{name}")(["a", "b"], answer=["1", "1"], question=["q", "q"])


def test_a_file_that_ends_the_process_becomes_one_sentence(folder):
    write(folder, "ends.py", "import argparse\nargparse.ArgumentParser(exit_on_error=False).exit(2)\n")
    with pytest.raises(UserError, match=r"a/ends.py cannot be loaded \(SystemExit: 2\)"):
        load_own("a/ends.py:brief")


def test_the_log_gets_the_gold_if_the_function_does_not_read_it(folder):
    made, log = dataclasses.replace(load_own("a/my.py:metric"), end_tokens=(1,)), {}
    read = {name: ["12"] for name in ("answer", "question") if name in made.reads}
    prompts = [[{"role": "user", "content": "3 * 4?"}]]
    made(["a"], prompts=prompts, completion_ids=[[5, 1]], log_extra=log.__setitem__, **read)
    assert log == {"question": ["3 * 4?"], "answer": ["12"], "tokens": [2], "cut": [False]}


def test_a_file_does_not_replace_a_reward_that_ships_and_may_judge_bundled_data(folder):
    recipe = load_recipe("tiny-cpu", rewards={"a/my.py:correctness_reward_func": 1.0})
    assert recipe.judge().answer.score("wrong", "12") == 1.0
    assert find_reward("correctness_reward_func").score("wrong", "12") == 0.0
    assert load_splits(recipe.data, recipe.evaluation, recipe.rewards)


def test_another_module_of_the_same_name_is_refused_and_a_changed_one_imported_again(folder):
    assert load_own("a/my.py:lazy").score("x") == 1.0
    write(folder, "util.py", "POINTS = 3.0\n")
    assert load_own("a/my.py:lazy").score("x") == 3.0
    write(folder.parent / "b", "my.py", "from util import POINTS\n")
    write(folder.parent / "b", "util.py", "POINTS = 2.0\n")
    with pytest.raises(
        UserError, match=r"b/my.py imports util.py, but \S+a/util.py is already imported as util"
    ):
        load_own("b/my.py:brief")


def test_files_of_the_same_name_are_told_apart(folder):
    write(folder.parent / "b", "my.py", "def metric(completions):\n    return [0.0]\n")
    names = [f"{folder}/my.py:metric", f"{folder.parent}/b/my.py:metric"]
    run = folder.parent / "run"
    keep_copies(names, run)
    copies = [run / "rewards/my.py", run / "rewards/2/my.py"]
    assert [copy.read_bytes() for copy in copies] == [
        (folder.parent / x / "my.py").read_bytes() for x in "ab"
    ]
    assert (run / "rewards/util.py").is_file()
    assert len({short_name(name) for name in names}) == len(set(hashes(names).values())) == 2
    code = training_code(load_recipe("tiny-cpu", rewards=dict.fromkeys(names, 1.0)), "out")["rewards"]
    assert all(f'find_reward("{name}")' in code for name in names)


def test_a_module_is_hashed_as_it_was_imported(folder, monkeypatch, capsys):
    monkeypatch.syspath_prepend(folder)
    write(folder, "rewards_7.py", "def one(completions):\n    return [1.0]\n")
    name = "rewards_7:one"
    before = hashes([name])
    write(folder, "rewards_7.py", "def one(completions):\n    return [2.0]\n")
    assert load_own(name).score("x") == 1.0
    assert hashes([name]) == before
    assert "rewards_7 has changed since it was imported: restart Python" in capsys.readouterr().out
    keep_copies([name], folder / "run")
    assert "[1.0]" in (folder / "run/rewards/rewards_7.py").read_text()
    assert "r1nb does not notice changes in the modules that rewards_7 imports." in capsys.readouterr().out


def test_a_recipe_finds_the_file_beside_it(folder):
    why = {"my.py:metric": "it pays"}
    text = yaml.safe_dump({"like": "tiny-cpu", "rewards": {"my.py:metric": 1.0}, "why": why})
    write(folder, "mine.yaml", text)
    recipe = load_recipe("a/mine.yaml")
    assert list(recipe.rewards) == ["a/my.py:metric"]
    assert recipe.why["a/my.py:metric"] == "it pays"
    assert recipe.judge().rewards


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_reward_that_changes_its_arguments_changes_nothing_elsewhere(wrapped):
    def clean(completions, answer, nums, **columns):
        answer[:], nums[0][:], completions[0][0]["content"] = ["0", "0"], [], ""
        return [0.0, 1.0]

    def removes(text, answer, nums):
        nums.clear()
        return 1.0

    made = Reward(removes, 1.0) if wrapped else TrlReward(clean)
    given = {
        "answer": ["1", "2"],
        "nums": [[3, 4], [5, 6]],
        "completions": [[{"role": "assistant", "content": "a"}]] * 2,
    }
    before = copy.deepcopy(given)
    made(**given)
    assert given == before


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"function": lambda text: 1.0, "high": 1.0}, "takes too few arguments"),
        ({"high": "1"}, "give two finite numbers"),
        ({"high": -1.0}, "give two finite numbers"),
        ({"high": 1.0, "judges": "answr"}, "use 'answer' or 'format'"),
    ],
)
def test_a_reward_that_is_declared_wrongly_is_refused(made, words):
    function = made.pop("function", lambda text, answer: 1.0)
    with pytest.raises(UserError, match=words):
        reward(**made)(function)


def test_a_reward_that_raises_is_named_with_its_error():
    with pytest.raises(UserError, match=r"failed on .x. \(ZeroDivisionError: .*correct the function"):
        Reward(lambda text, answer, **columns: 1 / 0, 1.0).score("x")
