"""Training without a notebook, by python -m r1nb.train."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import psutil
import pytest
from safetensors.torch import load_file

from r1nb import train
from r1nb.evaluation.proof import Proof
from r1nb.paths import CHECKOUT as ROOT
from r1nb.paths import runs_folder
from r1nb.recipes.loading import default_runs_dir, load_recipe, recipe_names
from r1nb.rewards.mathematics import math_equal
from r1nb.runs.run import Run
from r1nb.training.resume import new_run
from r1nb.widgets.inspector import Inspector

QWEN, GSM8K = os.environ.get("R1NB_QWEN_GGUF"), os.environ.get("R1NB_GSM8K_DIR")
FIVE = load_recipe("tiny-five-rewards").rewards  # these teach something in four steps
SHORT = [
    f"rewards={FIVE}", "max_steps=4", "per_device_train_batch_size=16", "test_problems=8",
    "validation_problems=8", "eval_every=2", "samples=2", "sampled_problems=4", "torch_threads=1",
]  # fmt: skip


def start(folder, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "r1nb.train", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"R1NB_SET": f"runs_dir={folder}/runs"}, start_new_session=True,
    )  # fmt: skip


def interrupt_at(process: subprocess.Popen, words: str) -> tuple[str, str]:
    """Send ^C to all processes of a command, as a terminal does, when it prints the given words."""
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    rest, errors = process.communicate()
    return "".join(said) + rest, errors


def test_a_run_interrupted_before_in_and_after_training_resumes_and_proves_its_adapter(tmp_path):
    run = tmp_path / "runs" / "tiny-cpu-001"
    # Do not interrupt the imports: some libraries catch a KeyboardInterrupt.
    for words, sentence in {
        "test, prefilled, sampled: 8 answers": "keeps what was trained: run this again to measure it.",
        "step 1 of 4": "saved in runs/tiny-cpu-001: run again to resume.",
        "in a fresh process": "r1nb: Interrupted: run it again to resume from what is saved.",
    }.items():
        process = start(tmp_path, "tiny-cpu", *SHORT)
        said, errors = interrupt_at(process, words)
        assert process.returncode == 130, said + errors
        assert len(errors.splitlines()) == 1
        assert errors.startswith("r1nb: ")
        assert errors.endswith(f"{sentence}\n")
        assert not Run(run).finished
    again = start(tmp_path, "tiny-cpu", *SHORT)
    said, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "Resuming runs/tiny-cpu-001" in said
    assert "All 4 steps are trained already." in said
    assert "run folder: runs/tiny-cpu-001" in said
    assert "gave the trained policy's answer to 8 of 8 problems" in said
    run = Run(run)
    assert run.finished
    assert run.series("reward")[0] == [1, 2, 3, 4]
    assert set(run.evaluation()["test"]) == {"before", "prefilled", "after"}
    assert (run.folder / "report.html").is_file()
    assert "vllm serve" in (run.folder / "serve.md").read_text()
    assert not list(run.folder.parent.glob("*-002"))


def test_a_log_file_gets_lines_and_a_terminal_also_gets_progress_bars(tmp_path):
    """All lines of the log are shown in the terminal, too."""
    quick = [*SHORT, "eval_batch_size=2", "save_strategy='no'", "sft.max_steps=2"]
    lines = start(tmp_path, "tiny-r1", *quick).communicate()
    log = "".join(lines)
    assert "\r" not in log
    assert "\x1b" not in log
    assert 20 < log.count("\n") < 100
    assert re.search(r"\nSFT: 2 steps\nSFT: mean loss .+\nGRPO: 4 steps\n(.+\n)*step 1 of 4, reward", log)
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    quick += [f"runs_dir={tmp_path}/runs", "resume=false"]
    command = [sys.executable, "-m", "r1nb.train", "tiny-r1", *quick]
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there)
    os.close(there)
    shown = b""
    with contextlib.suppress(OSError), open(here, "rb", buffering=0) as terminal:  # its end closes it
        while part := terminal.read(4096):
            shown += part
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"test, before:.*\| 0/8", text)
    assert re.search(r"step [1-4] of 4, reward \d", text)
    assert re.search(r"test, after:.*\| 0/8", text)
    for line in lines[0].splitlines():  # except lines that depend on time or run
        if not re.search(r"answers$|reward|tiny-r1-00|\d s", line):
            assert line in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "the following arguments are required: RECIPE"),
        (["tiny-cp"], 1, "did you mean 'tiny-cpu'"),
        (["tiny-cpu", "max_steps"], 1, "The command line holds 'max_steps'; write key=value"),
        (["tiny-cpu", "rewards={a: 1"], 1, "whose value is not YAML: close any open quote"),
        (["tiny-cpu", "name=a/b"], 1, "Runs cannot be named 'a/b', because the name holds '/'"),
        (["tiny-cpu", "learning_rate=fast"], 1, "learning_rate = 'fast'"),
        (["llama31-8b-40gb"], 1, "needs a CUDA GPU"),
    ],
)
def test_a_user_error_prints_one_sentence_and_sets_the_exit_code(tmp_path, arguments, code, words):
    process = start(tmp_path, *arguments)
    _, errors = process.communicate()
    assert process.returncode == code
    assert words in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (Proof(8, 8, 0, trained=[0.0, 0.0, 0.3]), "Faithful, but without effect"),
        (Proof(8, 0, 8, 1.0, 0.0, trained=[0.9, 0.6, 1.0]), "NOT faithful: do not trust this adapter."),
        (Proof(0, 0, 0, not_run="no memory"), "saved, but not yet checked: no memory"),
    ],
)
def test_an_adapter_that_does_not_hold_has_its_own_exit_code(
    tmp_path, monkeypatch, capsys, tiny_recipe, proof, words
):
    run = new_run(tiny_recipe)
    monkeypatch.setattr(train, "train", lambda recipe: (run, proof))
    with pytest.raises(SystemExit) as ended:
        train.main("tiny-cpu", f"runs_dir={tmp_path}")
    assert ended.value.code == 3
    assert words in capsys.readouterr().out


def test_the_subprocess_of_a_reward_survives_an_interrupt():
    """A terminal sends ^C to all processes, but the current step must still be finished."""
    assert math_equal(r"\sqrt{4}", "2")
    (child,) = (p for p in psutil.Process().children() if "r1nb.rewards.mathematics:compare" in p.cmdline())
    child.send_signal(signal.SIGINT)
    assert math_equal(r"\sqrt{9}", "3")
    assert child.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("recipe", ["tiny-cpu", "auto"])
@pytest.mark.parametrize("named", ["", "recipe=auto", "recipe=tiny-r1"])
def test_runs_are_written_to_the_folder_that_notebook_04_reads(tmp_path, monkeypatch, capsys, recipe, named):
    """R1NB_SET overrides RECIPE, and accepts the dotted name of a setting."""
    monkeypatch.setenv("R1NB_SET", f"{named} output.runs_dir={tmp_path}/mine")
    trained = []

    def record(recipe):
        trained.append(recipe)
        return new_run(recipe), Proof(8, 8, 8, 1.0, trained=[0.0, 0.0, 0.3])

    monkeypatch.setattr(train, "train", record)
    train.main(recipe)
    assert trained[0].name == ("tiny-r1" if named == "recipe=tiny-r1" else "tiny-cpu")
    assert [run.name for run in Run.all(Inspector().runs_dir)] == [f"{trained[0].name}-001"]
    assert runs_folder(default_runs_dir()) == tmp_path / "mine"


def test_help_lists_recipes_and_options_without_loading_torch():
    command = [sys.executable, "-X", "importtime", "-m", "r1nb.train", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in recipe_names():
        assert f"\n  {name} " in done.stdout
    for words in ("max_steps=20 seed=2", 'name="first try"', "resume=false", "exit codes", "Notebook 04"):
        assert words in done.stdout
    assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.skipif(not QWEN or not GSM8K, reason="R1NB_QWEN_GGUF or R1NB_GSM8K_DIR is not set")
def test_a_run_from_a_gguf_file_resumes_bit_for_bit(tmp_path):
    settings = [
        "qwen25-0.5b-cpu", f"model_name={QWEN}", f"dataset={GSM8K}", "max_steps=2", "save_steps=1",
        "per_device_train_batch_size=8", "gradient_accumulation_steps=1", "max_completion_length=24",
        "test_problems=4", "validation_problems=4",
    ]  # fmt: skip
    said, errors = interrupt_at(start(tmp_path, *settings), "step 1 of 2")
    assert "run again to resume" in errors, said + errors
    weights = []
    for options in ([], ["resume=false"]):
        process = start(tmp_path, *settings, *options)
        said, errors = process.communicate()
        assert process.returncode in (0, 3), errors  # 3: two steps may change no greedy answer
        assert ("Resuming runs/qwen25-0.5b-cpu-001" in said) == (not options)
        folder = tmp_path / f"runs/qwen25-0.5b-cpu-00{len(weights) + 1}"
        weights.append(load_file(folder / "adapter" / "adapter_model.safetensors"))
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
    assert any(value.any() for name, value in weights[0].items() if "lora_B" in name)
