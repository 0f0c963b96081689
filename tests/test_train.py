"""Training without a notebook: python -m r1nb.train."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from r1nb import train
from r1nb.evaluation.proof import Proof
from r1nb.recipes.recipe import recipe_names
from r1nb.runs.run import Run
from r1nb.training.resume import new_run

SHORT = ["max_steps=4", "per_device_train_batch_size=16", "test_problems=8", "validation_problems=8",
         "eval_every=2", "samples=2", "sampled_problems=4", "torch_threads=1"]  # fmt: skip


def start(folder, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "r1nb.train", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"R1NB_SET": f"runs_dir={folder}/runs"},
    )  # fmt: skip


def test_interrupted_and_started_again_it_trains_each_step_once_and_proves_the_adapter(tmp_path):
    first = start(tmp_path, "tiny-cpu", *SHORT)
    folder = tmp_path / "runs" / "tiny-cpu-001"
    while not (folder / "history.jsonl").is_file() or '"loss"' not in (folder / "history.jsonl").read_text():
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate()
    assert first.returncode == 130
    assert "which is saved in runs/tiny-cpu-001: run this again to go on from there." in errors
    again = start(tmp_path, "tiny-cpu", *SHORT)
    said, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "Going on with runs/tiny-cpu-001" in said
    assert "step 4 of 4" in said
    assert "run folder: runs/tiny-cpu-001" in said
    assert "gave the trained policy's answer to 8 of 8 problems" in said
    run = Run(folder)
    assert run.finished
    assert run.series("reward")[0] == [1, 2, 3, 4]
    assert set(run.evaluation()["test"]) == {"before", "prefilled", "after"}
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "the following arguments are required: RECIPE"),
        (["tiny-cp"], 1, "did you mean 'tiny-cpu'"),
        (["tiny-cpu", "max_steps"], 1, "The command line holds 'max_steps'; write key=value"),
        (["tiny-cpu", "rewards={a: 1"], 1, "whose value is no YAML: is a quote open"),
        (["tiny-cpu", "name=mine"], 1, "Unknown setting 'name'"),
        (["tiny-cpu", "learning_rate=fast"], 1, "learning_rate = 'fast'"),
        (["llama31-8b-40gb"], 1, "needs a CUDA GPU"),
    ],
)
def test_a_mistake_ends_with_its_code_and_one_sentence(tmp_path, arguments, code, words):
    process = start(tmp_path, *arguments)
    _, errors = process.communicate()
    assert process.returncode == code
    assert words in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("runs/*"))


def test_an_adapter_that_is_not_proven_has_a_code_of_its_own(tmp_path, monkeypatch, capsys, tiny_recipe):
    run = new_run(tiny_recipe)
    monkeypatch.setattr(train, "train", lambda recipe: (run, Proof(8, 8, 0, trained=[0.0, 0.0, 0.3])))
    with pytest.raises(SystemExit) as ended:
        train.main("tiny-cpu", f"runs_dir={tmp_path}")
    assert ended.value.code == 3
    assert "NOT proven: do not trust this adapter." in capsys.readouterr().out


def test_help_teaches_without_loading_torch():
    command = [sys.executable, "-X", "importtime", "-m", "r1nb.train", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in recipe_names():
        assert f"\n  {name} " in done.stdout
    for words in ("max_steps=20 seed=2", "resume=false", "exit codes", "Notebook 04"):
        assert words in done.stdout
    assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
