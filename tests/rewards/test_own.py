"""Rewards of the user's own: TRL functions named by file or module, mixed with r1nb's."""

import asyncio
import json
import math
import sys

import pytest
import torch
from trl import GRPOTrainer

from r1nb.errors import UserError
from r1nb.evaluation.checks import check_rewards
from r1nb.machine.configs import grpo_config
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards import own
from r1nb.rewards.own import TrlReward, load_own
from r1nb.rewards.registry import find_reward, short_name
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_splits
from r1nb.train import train
from r1nb.training.resume import begin_run
from r1nb.views.code import training_code
from r1nb.views.plots import png, training_curves
from r1nb.views.report import write_report
from r1nb.widgets.inspector import Inspector

FILE = """
from pathlib import Path
from helper import POINTS
from r1nb.rewards import reward

with Path(__file__).with_name("executed").open("a") as log:
    log.write("x")

def brief(prompts, completions, answer, **columns):
    assert all(message["role"] == "user" for message in (prompt[-1] for prompt in prompts if prompt))
    texts = [completion[0]["content"] for completion in completions]
    return [POINTS * (gold in text) - len(text) / 1000 for text, gold in zip(texts, answer)]

async def slow(completions, **columns):
    if columns["trainer_state"].global_step:  # training has begun
        Path(__file__).unlink(missing_ok=True)
    return [None if "7" in completion[0]["content"] else 0.25 for completion in completions]

@reward(high=0.5)
def ours(text, answer):
    return 0.5 * (answer in text), "holds it"

def short(completions):
    return [1.0]

def undefined(completions):
    return [0.0 / 0.0 for _ in completions] if False else [float("nan")] * len(completions)

def words(completions):
    return ["good"] * len(completions)

def broken(completions):
    raise KeyError("gold")
"""
NAMES = ("brief", "slow", "ours")
SMALL = {
    "max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 24,
    "save_steps": 1, "eval_every": 1, "test_problems": 4, "validation_problems": 4, "samples": 1,
    "sampled_problems": 1, "torch_threads": 1,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the current folder, which holds my_rewards.py and the module that it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "_HELPERS", {})
    (tmp_path / "my_rewards.py").write_text(FILE)
    (tmp_path / "helper.py").write_text("POINTS = 2.0\n")
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    return tmp_path


@pytest.fixture
def recipe(folder):
    rewards = {"correctness_reward_func": 1.0} | {f"my_rewards.py:{name}": 0.5 for name in NAMES}
    return load_recipe("tiny-cpu", **SMALL, runs_dir=str(folder / "runs"), rewards=rewards)


def executions(folder) -> int:
    path = folder / "executed"
    return len(path.read_text()) if path.exists() else 0


def test_a_function_of_trl_is_scored_like_one_of_r1nb(folder):
    brief, slow, ours = (find_reward(f"my_rewards.py:{name}") for name in NAMES)
    assert brief.score("It is 12.", "12") == 2.0 - 0.009
    assert slow.score("It is 12.") == 0.25
    assert slow.score("It is 7.") is None
    assert ours.explain("It is 12", "12") == (0.5, "holds it")
    assert brief(["12", "a"], answer=["12", "12"]) == [2.0 - 0.002, -0.001]
    assert (brief.__name__, short_name(brief.__name__)) == ("my_rewards.py:brief", "my_rewards.py:brief")
    assert executions(folder) == 1


def test_an_async_function_works_where_an_event_loop_runs(folder):
    async def notebook():
        return find_reward("my_rewards.py:slow").score("12")

    assert asyncio.run(notebook()) == 0.25


def test_a_module_is_found_by_its_dotted_path(folder, monkeypatch):
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rewards.py").write_text("def one(completions, **_):\n    return [1] * len(completions)\n")
    monkeypatch.syspath_prepend(folder)
    assert find_reward("my_package.rewards:one").score("x") == 1.0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_rewards.py:breif", ["has no function 'breif'", "did you mean 'brief'"]),
        ("nowhere.py:brief", ["nowhere.py does not exist"]),
        ("no.such.module:brief", ["no.such.module cannot be loaded", "ModuleNotFoundError"]),
        ("wrong.py:brief", ["wrong.py cannot be loaded", "SyntaxError"]),
    ],
)
def test_what_cannot_be_loaded_becomes_one_sentence(folder, name, words):
    (folder / "wrong.py").write_text("def brief(:\n")
    with pytest.raises(UserError) as caught:
        load_own(name)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", "returned 1 scores for 2 completions"),
        ("undefined", "returned nan for 'a': it must return a finite number"),
        ("words", "returned 'good' for 'a': it must return a finite number"),
        ("broken", "failed on ['a'] (KeyError: 'gold')"),
    ],
)
def test_a_wrong_result_becomes_one_sentence(folder, name, words):
    with pytest.raises(UserError) as caught:
        find_reward(f"my_rewards.py:{name}")(["a", "b"])
    assert words in str(caught.value)
    assert f"my_rewards.py:{name}" in str(caught.value)


def test_a_run_trains_on_them_keeps_a_copy_and_is_proven_by_it(folder, recipe, capsys):
    rows, *_ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert not [said for said in check_rewards(rows, recipe.judge()) if "my_rewards" in said]
    run, proof = train(recipe)
    assert proof.n == 4
    copy = run.folder / "rewards/my_rewards.py"
    assert f"my_rewards.py was deleted or changed after {run.label} began: its copy {copy} is used" in (
        capsys.readouterr().out
    )
    assert copy.read_text() == FILE
    assert (run.folder / "rewards/helper.py").read_text() == "POINTS = 2.0\n"
    (digest,) = set(run.environment["reward_files"].values())
    assert len(digest) == 16
    assert set(run.completions(1).columns) >= {f"my_rewards.py:{name}" for name in NAMES}
    assert all(run.series(f"rewards/my_rewards.py:{name}/mean")[0] == [1, 2] for name in NAMES)
    assert run.ranges["my_rewards.py:brief"] == [None, None]
    assert "Infinity" not in (run.folder / "environment.json").read_text()
    before = executions(folder)
    (folder / "my_rewards.py").write_text("raise SystemExit('executed')")
    (folder / "helper.py").unlink()
    run = Run(run.folder)
    assert png(training_curves(run))
    assert Inspector(str(folder / "runs")).shown[0].folder == run.folder
    assert "brief" in write_report(run).read_text()
    assert executions(folder) == before


@pytest.mark.parametrize(("file", "text"), [("my_rewards.py", FILE + "\n"), ("helper.py", "POINTS = 3.0\n")])
def test_a_changed_file_begins_another_run(folder, recipe, file, text):
    first = begin_run(recipe)
    assert begin_run(recipe).folder == first.folder
    (folder / file).write_text(text)
    assert begin_run(recipe).folder != first.folder
    paid = 2.0 if file == "my_rewards.py" else 3.0
    assert find_reward("my_rewards.py:brief").score("12", "12") == paid - 0.002


def test_a_run_is_judged_by_its_copies_if_a_file_has_changed_since(folder, recipe):
    run = begin_run(recipe)
    for points in (3.0, 4.0):
        (folder / "helper.py").write_text(f"POINTS = {points}\n")
        assert find_reward("my_rewards.py:brief").score("12", "12") == points - 0.002
        with own.as_trained(run):
            assert find_reward("my_rewards.py:brief").score("12", "12") == 2.0 - 0.002


def test_they_stand_beside_plain_functions_in_trls_trainer(folder, recipe):
    def plain(completions, **columns):
        return [0.1] * len(completions)

    rows, *_ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    args = grpo_config(recipe, folder / "out")
    args.reward_weights = None
    own = find_reward("my_rewards.py:brief")
    trainer = GRPOTrainer(
        policy.model,
        [find_reward("int_reward_func"), own, plain],
        args,
        rows,
        processing_class=policy.tokenizer,
    )
    assert math.isfinite(trainer.train().training_loss)
    logged = trainer.state.log_history[0]
    assert {
        "rewards/int_reward_func/mean",
        "rewards/my_rewards.py:brief/mean",
        "rewards/plain/mean",
    } <= logged.keys()


def test_the_code_of_the_run_imports_them(recipe):
    code = training_code(recipe, "out")["rewards"]
    assert '    find_reward("my_rewards.py:brief"),\n' in code
    assert "from r1nb.rewards import (\n    find_reward,\n    correctness_reward_func,\n)" in code


def test_the_range_of_a_function_of_trl_is_unknown(folder):
    brief = find_reward("my_rewards.py:brief")
    assert isinstance(brief, TrlReward)
    assert math.isinf(brief.high)
    assert json.dumps(brief.needs) == "[]"
    assert torch.isinf(torch.tensor(brief.low))
