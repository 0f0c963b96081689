"""The run folder: it can be read while it is written and after a crash, and is never overwritten."""

import json
import multiprocessing
import os
import random
import re
import signal
import time

import pandas
import pytest
from written_run import IDEAL, append_step, write_run

from r1nb.errors import UserError
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.runs.activity import TRAINING, say_now
from r1nb.runs.run import CARD, Run
from r1nb.tasks.rows import load_splits
from r1nb.training.callbacks import Recorder
from r1nb.training.resume import new_run
from r1nb.training.stages import sft, solution_examples
from r1nb.views.plots import pass_curves, png, training_curves
from r1nb.views.progress import progress


def test_a_new_run_gets_a_new_folder(tiny_recipe):
    first, second = new_run(tiny_recipe), new_run(tiny_recipe)
    assert (first.name, second.name) == ("tiny-cpu-001", "tiny-cpu-002")
    assert load_recipe(first) == tiny_recipe
    environment = json.loads((first.folder / "environment.json").read_text())
    assert environment["versions"]["trl"]


def test_an_incomplete_last_line_is_ignored(tiny_recipe):
    run = new_run(tiny_recipe)
    run.append({"step": 1, "reward": 0.5})
    with (run.folder / "history.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    assert Run(run.folder).history() == [{"step": 1, "reward": 0.5}]
    assert run.series("reward") == ([1], [0.5])


def test_lines_after_an_incomplete_line_are_read(tiny_recipe):
    run = new_run(tiny_recipe)
    with (run.folder / "history.jsonl").open("a") as file:
        file.write('{"step": 1, "rew')
    run.append({"step": 2, "reward": 0.5})
    run.append({"step": 3, "reward": 0.6})
    assert run.series("reward") == ([2, 3], [0.5, 0.6])


def test_an_incomplete_file_of_completions_is_ignored(tiny_recipe):
    run = write_run(tiny_recipe, 3)
    path = run.folder / "completions" / "completions_00003.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert sorted(set(run.completions()["step"])) == [1, 2]
    with pytest.raises(UserError, match="no completions of step 3"):
        run.completions(3)


def write_until_killed(recipe, finished) -> None:
    """Write to a run folder like training does, step by step."""
    run = new_run(recipe)
    (run.folder / "completions").mkdir()
    columns = {"step": 1, "prompt": "24?", "completion": ["é" * 200] * 64, "advantage": 0.0}
    log = pandas.DataFrame(columns | dict.fromkeys(recipe.rewards, 0.5))
    for step in range(1, 10_000):
        append_step(run, step, [{"completion": "é" * 200}] * 60)
        log.to_parquet(run.folder / "completions" / f"completions_{step:05d}.parquet")
        finished.value = step


def test_a_run_folder_can_be_read_after_a_kill_at_any_moment(tiny_recipe):
    """In 50 kills, at most the current step is lost."""
    fork = multiprocessing.get_context("fork")
    moments, steps = random.Random(1), 0
    for _ in range(50):
        finished = fork.Value("i", 0, lock=False)
        writer = fork.Process(target=write_until_killed, args=(tiny_recipe, finished))
        known = len(Run.all(tiny_recipe.output.runs_dir))
        writer.start()
        target = moments.randrange(6)  # in steps, not seconds: machines differ in speed
        while finished.value < target:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.02))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        runs = Run.all(tiny_recipe.output.runs_dir)
        if len(runs) == known:  # killed before the run was created
            assert finished.value == 0
            continue
        run = max(runs, key=lambda run: run.name)
        trained = run.series("reward")[0]
        assert trained == list(range(1, len(trained) + 1))
        assert finished.value <= len(trained) <= finished.value + 1
        assert load_recipe(run) == tiny_recipe
        if finished.value:
            logs = run.completions()
            assert len(logs) in (64 * finished.value, 64 * finished.value + 64)
            run.validated()
            progress(run)
        steps += finished.value
    assert steps > 50


def test_progress_includes_the_time_left(tiny_recipe):
    tiny_recipe.grpo["max_steps"] = 100
    run = write_run(tiny_recipe, 40)
    say_now(run, TRAINING)
    assert progress(run) == (40, "step 40 of 100, reward 2.67, 2 min left")
    for step in range(41, 101):
        append_step(run, step, [])
    assert progress(run) == (100, "step 100 of 100, reward 4.00, in 3 min")


def test_a_run_that_has_stopped_shows_no_time_left(tiny_recipe):
    tiny_recipe.grpo["max_steps"] = 100
    run = write_run(tiny_recipe, 40)
    assert progress(run)[1] == "step 40 of 100, reward 2.67, stopped: run it again to resume"
    say_now(run, TRAINING)  # as a process leaves it that was killed
    assert progress(an_hour_ago(run))[1] == "step 40 of 100, reward 2.67, nothing new for 60 min"


def sft_run(recipe, steps: int):
    """Return a run of SFT alone, with the lines that Recorder and Validation write."""
    run = new_run(recipe)
    for step in range(1, steps + 1):
        run.append({"step": step, "time": 3.0 * step, "loss": 1 / step, "grad_norm": 0.3, "entropy": 0.5,
                    "mean_token_accuracy": 0.9, "num_tokens": 99.0, "adapter/norm": 0.1})  # fmt: skip
        if step % 8 == 0:
            run.append({"step": step, "validation/strict": 0.5, "validation/n": 60})
    return run


def an_hour_ago(run):
    """Make the last change of the history one hour old, and return the run."""
    then = time.time() - 3600
    os.utime(run.folder / "history.jsonl", (then, then))
    return run


@pytest.fixture
def staged_recipe(tmp_path):
    """Return a recipe with 24 steps of SFT and 64 steps of GRPO."""
    return load_recipe("tiny-r1", runs_dir=str(tmp_path / "runs"))


def test_a_run_of_sft_counts_the_steps_of_sft(staged_recipe):
    run = sft_run(staged_recipe, 10)
    say_now(run, TRAINING)
    assert progress(run) == (10, "step 10 of 24, loss 0.10, 42 s left")
    assert progress(an_hour_ago(run))[1] == "step 10 of 24, loss 0.10, nothing new for 60 min"


@pytest.mark.parametrize("steps", [24, 20])  # 20: the last line if every fifth step is logged
def test_a_finished_run_of_sft_shows_its_total_time(staged_recipe, steps):
    run = an_hour_ago(sft_run(staged_recipe, steps))
    (run.folder / "proof.json").write_text("{}")
    assert progress(run) == (steps, f"step {steps} of 24, loss {1 / steps:.2f}, in {3 * steps} s")


def test_a_run_of_sft_that_is_trained_but_not_proven_shows_its_last_step(staged_recipe):
    assert progress(an_hour_ago(sft_run(staged_recipe, 24)))[1] == "step 24 of 24, loss 0.04, in 72 s"


def test_a_run_of_grpo_whose_recipe_has_sft_counts_the_steps_of_grpo(staged_recipe):
    run = write_run(staged_recipe, 24)
    assert progress(run)[1].startswith("step 24 of 64, reward ")
    unjudged = {"step": 25, "time": 50.0, "loss": 0.0, "reward": None}
    run.append(unjudged)
    assert progress(run)[1].startswith("step 25 of 64, no reward, ")


def test_a_real_run_of_sft_shows_its_progress(staged_recipe):
    short = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 2}
    recipe = staged_recipe.model_copy(update={"sft": staged_recipe.sft | short})
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    rows, _, _ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    run = new_run(recipe)
    assert progress(run) == (0, "step 0 of 64")  # not yet known to be SFT
    sft(policy, solution_examples(rows, recipe.layout), recipe, run.folder, [Recorder(run)])
    (run.folder / "proof.json").write_text("{}")
    step, said = progress(an_hour_ago(run))
    assert step == 2
    assert re.fullmatch(r"step 2 of 3, loss \d\.\d\d, in \d+ s", said)


def test_the_progress_of_a_step_that_was_not_judged_has_no_reward(tiny_recipe):
    tiny_recipe.grpo["max_steps"] = 10
    run = write_run(tiny_recipe, 4)
    run.append({"step": 5, "time": 10.0, "loss": 0.0, "reward": None, "reward_std": None})
    say_now(run, TRAINING)
    assert progress(run)[1] == "step 5 of 10, no reward, 10 s left"
    assert png(training_curves(run))


def test_samples_that_were_not_judged_are_not_drawn(tiny_recipe):
    run = write_run(tiny_recipe, 1)
    unjudged = Graded("1 + 1?", "2", "two", ids=(7,), cut=False, strict=None, lenient=None, format=False,
                      rewards={})  # fmt: skip
    run.write_samples("before", "test", [[unjudged] * 8])
    assert not pass_curves(run).axes[0].lines


def test_a_history_that_was_replaced_is_read_again(tiny_recipe):
    run = write_run(tiny_recipe, 9)
    assert len(run.series("reward")[0]) == 9
    (run.folder / "history.jsonl").write_text("")
    run.append({"step": 1, "reward": 0.5})
    assert run.series("reward") == ([1], [0.5])


def test_rewards_that_only_the_notebook_of_the_run_defined(tiny_recipe, monkeypatch):
    """Their ranges are read from the run folder."""
    run = write_run(tiny_recipe, 5)
    path = run.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("int_reward_func", "my_reward_func"))
    path = run.folder / "environment.json"
    path.write_text(path.read_text().replace("int_reward_func", "my_reward_func"))
    assert Run(run.folder).best_total() == 4.0
    assert png(training_curves(Run(run.folder)))


def test_negative_rewards_are_visible_in_the_figures(tiny_recipe):
    tiny_recipe.rewards = {"correctness_reward_func": 1.0, "overlong_reward_func": 1.0}
    run = write_run(tiny_recipe, 3)
    run.append({"step": 4, "time": 8.0, "loss": 0.0, "reward": -0.5, "reward_std": 0.1,
                "rewards/overlong_reward_func/mean": -0.9})  # fmt: skip
    shown = [a for part in training_curves(run).subfigs for a in part.axes if a.get_title() != "xmlcount"]
    lows = {axes.get_title(): axes.get_ylim()[0] for axes in shown}
    assert lows["Total reward"] <= -0.5
    assert lows["overlong"] <= -0.9


def test_a_damaged_recipe_is_named(tiny_recipe):
    run = new_run(tiny_recipe)
    (run.folder / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match=r"runs/tiny-cpu-001/recipe\.yaml is not a recipe"):
        assert Run(run.folder).reward_weights


def test_the_total_is_weighted_and_a_missing_score_counts_as_0(tiny_recipe):
    tiny_recipe.rewards.update(int_reward_func=2.0)
    run = write_run(tiny_recipe, 1, texts=(IDEAL,))
    path = run.folder / "completions" / "completions_00001.parquet"
    log = pandas.read_parquet(path).drop(columns=["answer", "tokens", "cut"])
    log.loc[0, "xmlcount_reward_func"] = None
    log.to_parquet(path)
    read = run.completions(1)
    assert list(read["total"][:2]) == [2.5, 3.0]
    assert (read["answer"][0], read["tokens"][0], read["cut"][0]) == ("", 0, False)


def test_the_history_of_a_run_in_progress_is_read_again(tiny_recipe):
    writer = new_run(tiny_recipe)
    reader = Run(writer.folder)
    assert reader.history() == []
    for step in (1, 2, 3):
        writer.append({"step": step, "reward": step / 10})
        assert reader.series("reward")[0] == list(range(1, step + 1))


def test_latest_is_the_newest_finished_run(tiny_recipe):
    runs = [new_run(tiny_recipe) for _ in range(3)]
    folder = tiny_recipe.output.runs_dir
    assert Run.latest(folder) is None
    runs[0].adapter.mkdir()
    assert Run.latest(folder) is None  # a kill during the saving leaves this
    (runs[0].adapter / CARD).write_text("{}")
    assert Run.latest(folder).name == runs[0].name


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        Run(tmp_path)
