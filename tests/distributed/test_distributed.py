"""Two processes on a CPU, started by accelerate launch with the files of r1nb (`make test-distributed`)."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from r1nb.evaluation.accuracy import evaluate
from r1nb.paths import CHECKOUT, LAUNCH
from r1nb.policy.trained import load_trained
from r1nb.recipes.loading import load_recipe
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_rows

FIVE = load_recipe("tiny-five-rewards").rewards  # these teach something in four steps
SHORT = [
    f"rewards={FIVE}", "max_steps=4", "save_steps=2", "per_device_train_batch_size=8",
    "max_completion_length=48", "test_problems=6", "validation_problems=4", "eval_every=4", "samples=2",
    "sampled_problems=2", "test_splits=test",
]  # fmt: skip


def accelerate(config: str, *command: str) -> list[str]:
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / config)]
    return [*start, *command]


def start(folder, config: str, *settings: str) -> subprocess.Popen:
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            accelerate(config, "-m", "r1nb.train", "tiny-cpu", *SHORT, f"runs_dir={folder}/runs", *settings),
            cwd=CHECKOUT, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip


def finish(folder, process) -> str:
    code = process.wait(timeout=600)
    said = (folder / "said.txt").read_text()
    assert code == 0, said[-3000:]
    return said


def kill_in_step(folder, process, step: int) -> None:
    """Kill the launcher and its processes when the history contains the given step."""
    history = folder / "runs" / "tiny-cpu-001" / "history.jsonl"
    while not history.is_file() or f'"step": {step}' not in history.read_text():
        assert process.poll() is None, (folder / "said.txt").read_text()[-3000:]
        time.sleep(0.1)
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.wait()


def test_two_processes_write_one_run_once(tmp_path):
    said = finish(tmp_path, start(tmp_path, "cpu.yaml", "processes=2"))
    (run,) = Run.all(str(tmp_path / "runs"))
    assert run.finished
    assert [line["step"] for line in run.history() if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in run.history() if "validation/n" in line] == [0, 4]
    assert run.environment["processes"] == 2
    assert len(run.completions(3)) == 16  # from both processes
    for once in ("Run folder:", "16 completions, 8 in each of 2 processes", "run folder:"):
        assert said.count(once) == 1
    ours = {"recipe.yaml", "environment.json", "history.jsonl", "evaluation.json", "proof.json", "curves.png",
            "report.html", "serve.md", "README.md", ".lock", "evaluation", "validation", "completions",
            "adapter", "checkpoint-2", "checkpoint-4"}  # fmt: skip
    assert {path.name for path in run.folder.iterdir()} == ours
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {run.name}


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_two_processes_compute_the_loss_and_gradient_of_one_process(tmp_path, loss_type):
    script = str(Path(__file__).parent / "fixed_completions.py")
    alone, together = tmp_path / "alone", tmp_path / "together"
    for command in (
        [sys.executable, script, loss_type, str(alone), "16"],
        accelerate("cpu.yaml", script, loss_type, str(together), "8"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = torch.load(alone), torch.load(together)
    assert loss_type == "grpo" or one["loss"] != 0  # in grpo's loss, the advantages of a group sum to 0
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-6)
    assert two["reward"] == one["reward"]
    assert one["gradients"].keys() == two["gradients"].keys()
    assert max(float(gradient.abs().max()) for gradient in one["gradients"].values()) > 0.01
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=0, atol=1e-6)


def test_completions_of_the_base_model_stop_all_processes(tmp_path):
    script = str(Path(__file__).parent / "sampled_by_base.py")
    command = accelerate("cpu.yaml", script, str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1
    said = re.findall(
        r"r1nb: (After step \d+ the completions are sampled from the base model .*)", done.stderr
    )
    assert len(said) in (1, 2)  # the launcher may stop one process before it prints
    (run,) = Run.all(str(tmp_path))
    assert [line["sentence"] for line in run.alarms()] == said[:1]


@pytest.mark.parametrize("settings", [[], ["lora=null", "learning_rate=1e-4"]], ids=["lora", "full"])
def test_a_killed_zero3_run_resumes_and_its_saved_weights_answer(tmp_path, settings):
    kill_in_step(tmp_path, start(tmp_path, "zero3_cpu.yaml", *settings), 3)
    said = finish(tmp_path, start(tmp_path, "zero3_cpu.yaml", *settings))
    assert f"Resuming {tmp_path / 'runs/tiny-cpu-001'}" in said
    assert "Resuming after step 2 of 4; 1 steps are done again." in said
    (run,) = Run.all(str(tmp_path / "runs"))
    assert run.finished
    assert [line["step"] for line in run.history() if "loss" in line] == [1, 2, 3, 4]
    assert bool(run.series("adapter/norm")[0]) == (not settings)
    assert "gave the trained policy's answer to 6 of 6 problems" in said
    policy, recipe, folder = load_trained(run.folder)  # as notebook 05 does
    assert folder == (run.model if settings else run.adapter)
    assert policy.has_adapter == (not settings)
    rows = load_rows("bundled", "test").select(range(6))
    graded = evaluate(policy, rows, recipe.judge(), recipe.greedy, batch_size=6)
    assert [g.ids for g in graded] == [g.ids for g in run.graded("after")["test"]]
    assert [g.ids for g in graded] != [g.ids for g in run.graded("before")["test"]]


def test_a_recipe_for_more_processes_says_how_to_start_it():
    command = [sys.executable, "-m", "r1nb.train", "tiny-cpu", "processes=2"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    assert "trains in 2 processes, but this run has 1: start it with accelerate launch" in done.stderr
