"""The notebooks are committed with the outputs of their code, and run in any folder."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from refresh_notebooks import code_hash
from safetensors.torch import load_file

from r1nb.paths import CHECKOUT as ROOT
from r1nb.paths import NOTEBOOKS
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.registry import reward_names, short_name
from r1nb.runs.run import Run

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
SHORT = (
    "max_steps=3 per_device_train_batch_size=16 test_problems=8 validation_problems=8 "
    "eval_every=2 torch_threads=1 runs_dir={}"
)
# Five rewards teach something in three steps; correctness alone does not.
TEACHING = f"{SHORT} rewards='{{{load_recipe('tiny-five-rewards').rewards}}}'"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_outputs_come_from_the_current_code(path):
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata["r1nb"]["code_hash"] == code_hash(notebook), "run `make notebooks`"
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert len(text) < 800_000
    assert "widgets" not in notebook.metadata
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/\w", text)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_have_little_code_and_short_lines(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lines = [line for cell in code for line in cell.source.splitlines() if line.strip()]
    assert len(code) <= 18
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 80


def execute(path, folder, settings: str, constants: dict[str, str] | None = None):
    """Execute a notebook in a clean kernel whose working directory is `folder`.

    `constants` maps lines of its code to their replacements.
    """
    environment = os.environ | {"R1NB_SET": settings}
    notebook = nbformat.read(path, as_version=4)
    for line, other in (constants or {}).items():
        (cell,) = (cell for cell in notebook.cells if line in cell.source.splitlines())
        cell.source = cell.source.replace(line, other)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    return "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/html", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Execute a short notebook 03 and return (folder, settings, output)."""
    folder = tmp_path_factory.mktemp("elsewhere")
    settings = TEACHING.format(folder / "runs")
    said = execute(NOTEBOOKS / "03_train_grpo.ipynb", folder, settings)
    return folder, settings, said


def test_notebook_01_follows_rows_to_tokens(tmp_path):
    said = execute(NOTEBOOKS / "01_prompts_and_data.ipynb", tmp_path, f"runs_dir={tmp_path}")
    assert "Dropped 3 of 6 rows of train: no question or gold, or marked invalid." in said
    assert "What is 90 x 12? -&gt; 1080" in said or "What is 90 x 12? -> 1080" in said


def test_notebook_02_explains_every_reward(tmp_path):
    said = execute(NOTEBOOKS / "02_rewards.ipynb", tmp_path, f"runs_dir={tmp_path}")
    for name in reward_names():
        assert name in said
    assert "The rewards are fine." in said


def test_notebook_09_takes_grpo_apart(tmp_path):
    said = execute(NOTEBOOKS / "09_grpo_on_one_page.ipynb", tmp_path, f"runs_dir={tmp_path}")
    assert "mean 1.375, deviation 1.664" in said
    assert re.search(r"step 0: grpo [+-]0\.0000, .*; 0% of tokens clipped", said)


def test_notebook_11_takes_one_step_and_takes_it_back(tmp_path):
    said = execute(NOTEBOOKS / "11_one_grpo_step.ipynb", tmp_path, f"torch_threads=1 runs_dir={tmp_path}")
    assert re.search(r"[1-9]\d* of 64 groups teach something\.", said)
    assert "✓ right" in said
    assert said.count("after<br>") == 8
    assert "The probabilities are those of before: True" in said


def test_notebook_03_trains_and_prints_where_its_files_are(trained):
    folder, _, said = trained
    (found,) = (folder / "runs").iterdir()
    run = Run(found)
    assert run.series("reward")[0] == [1, 2, 3]
    evaluation = run.evaluation()
    assert set(evaluation) == {"test", "test_unseen_kinds"}
    for moments in evaluation.values():
        assert set(moments) == {"before", "prefilled", "after"}
        for summary in moments.values():
            assert {"strict", "lenient", "format", "n", "strict_interval"} <= set(summary)
    assert (run.folder / "adapter").is_dir()
    assert (run.folder / "report.html").is_file()
    assert "Run folder: runs/tiny-cpu-001" in said
    assert ">runs/tiny-cpu-001/report.html</a>" in said
    for word in ("strict", "lenient", "format", *map(short_name, run.reward_weights)):
        assert word in said
    assert "gave the trained policy's answer to 8 of 8 problems" in said


def test_make_train_gives_the_adapter_of_notebook_03_bit_for_bit(trained, tmp_path):
    folder, _, _ = trained
    done = subprocess.run(
        [sys.executable, "-m", "r1nb.train", "tiny-cpu"],
        cwd=tmp_path, env=os.environ | {"R1NB_SET": TEACHING.format(tmp_path / "runs")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = (
        load_file(path / "runs/tiny-cpu-001/adapter/adapter_model.safetensors") for path in (tmp_path, folder)
    )
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    trained_matrices = [weight for name, weight in ours.items() if "lora_B" in name]
    assert any(weight.abs().max() > 0 for weight in trained_matrices)  # B starts at 0


def test_notebook_04_opens_the_run_of_notebook_03(trained):
    folder, settings, _ = trained
    said = execute(NOTEBOOKS / "04_inspect_run.ipynb", folder, settings)
    assert "after step 3" in said
    assert "has no alarms." in said
    assert "remainder" in said
    assert ">runs/tiny-cpu-001/report.html</a>" in said


def test_notebook_06_trains_and_counts_reflection(tmp_path):
    said = execute(NOTEBOOKS / "06_countdown_r1_zero.ipynb", tmp_path, SHORT.format(tmp_path / "runs"))
    (found,) = (tmp_path / "runs").iterdir()
    run = Run(found)
    assert run.series("reward")[0] == [1, 2, 3]
    assert set(run.evaluation()["test"]) == {"before", "prefilled", "after"}
    assert "enclosed within <think> </think>" in said  # the template of R1
    assert "equals 25, not 24" in said  # the reason for a reward of 0
    for words in ("goes back after a failed attempt", "rescued: first attempt wrong", "attempt 3"):
        assert words in said
    assert re.search(r"after: of \d+ sampled answers that went back after a failed", said)
    assert "gave the trained policy's answer to 8 of 8 problems" in said
    assert (run.folder / "report.html").is_file()


STAGES = ["r1-zero-001", "r1-cold-start-001", "r1-reasoning-001", "r1-sft-001", "r1-final-001"]


def test_notebook_07_runs_all_stages_and_trains_none_twice(tmp_path):
    settings = SHORT.format(tmp_path / "runs") + (
        " samples=2 sampled_problems=4 sft.max_steps=24 sft.per_device_train_batch_size=32"
    )
    fewer = {"PROBLEMS = 256": "PROBLEMS = 64"}
    said = execute(NOTEBOOKS / "07_r1_stages.ipynb", tmp_path, settings, fewer)
    runs = {run.name: run for run in Run.all(tmp_path / "runs")}
    assert set(runs) == {*STAGES, "grpo-alone-001"}
    assert all(run.finished for run in runs.values())
    parents = {name: run.environment.get("parent", "") for name, run in runs.items()}
    assert [parents[name] for name in STAGES] == ["", *STAGES[:-1]]
    assert parents["grpo-alone-001"] == ""
    for name in ("r1-cold-start-001", "r1-sft-001"):
        assert runs[name].rejection()["kept"] > 0
    for words in ("wrong answer", "problems with a kept completion", "4 second GRPO", "GRPO alone"):
        assert words in said
    assert said.count("Faithful") == 6
    assert "without effect" not in said
    begun = {name: run.history() for name, run in runs.items()}
    again = execute(NOTEBOOKS / "07_r1_stages.ipynb", tmp_path, settings, fewer)
    assert again.count("is finished and stays as it is") == 6
    assert {run.name: run.history() for run in Run.all(tmp_path / "runs")} == begun


def test_notebook_08_shows_the_results(tmp_path):
    said = execute(NOTEBOOKS / "08_experiments.ipynb", tmp_path, f"runs_dir={tmp_path}")
    for words in (
        "GRPO, a random reward",
        "SFT on its own right answers",
        "completions to 80%",
        "not distinguishable",
    ):
        assert words in said


def test_notebook_05_answers_from_the_newest_run(trained):
    folder, settings, _ = trained
    said = execute(NOTEBOOKS / "05_sample_lora.ipynb", folder, settings)
    assert "Loaded adapter on tiny-policy" in said
    assert "Which is greater 9.10 or 9.9?" in said
    assert "Likelihood by the adapter, compared with the base" in said


def test_all_notebooks_begin_with_the_same_cell_for_colab_and_kaggle():
    first = {
        next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        for path in PATHS
    }
    assert len(first) == 1
    assert 'if {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & os.environ.keys():' in first.pop()


# A stand-in for Colab: its module, with a drive that only prints that it was mounted.
COLAB = """
import importlib.machinery, sys, types
colab = types.ModuleType("google.colab")
colab.__spec__ = importlib.machinery.ModuleSpec("google.colab", None)
colab.drive = types.SimpleNamespace(mount=lambda path: print("mounted", path))
sys.modules["google.colab"] = colab
"""


@pytest.fixture
def colab(tmp_path):
    """Return a Python that has r1nb's dependencies but not r1nb, and a folder that contains the wheel."""
    environment, folder = tmp_path / "env", tmp_path / "content"
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    venv.create(environment, with_pip=True, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (installed,) = Path(sys.prefix).glob("lib/python*/site-packages")
    for old in site.glob("setuptools*"):  # PyTorch refuses that of Python 3.11
        shutil.rmtree(old)
    others = tmp_path / "others"
    others.mkdir()
    for path in installed.iterdir():
        if not path.name.startswith(("r1nb", "_editable", "_r1nb", "__pycache__", "pip")):
            (others / path.name).symlink_to(path)
    (site / "stands_for_colab.py").write_text(COLAB)
    (site / "others.pth").write_text(f"{others}\nimport stands_for_colab\n")
    return environment / "bin" / "python", folder


def test_on_colab_the_first_cell_installs_all_that_is_needed(colab):
    python, folder = colab
    notebook = nbformat.read(NOTEBOOKS / "03_train_grpo.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].source = code[0].source.replace("DRIVE = False", "DRIVE = True")
    said = "import os, r1nb; print(r1nb.__file__, os.environ['R1NB_SET'])\n"
    settings = SHORT.format(folder / "runs").replace("max_steps=3", "max_steps=2")
    # There is no real drive here, so the second cell first sets another folder for the runs.
    code[1].source = f"{said}os.environ['R1NB_SET'] = {settings!r}\n{code[1].source}"
    (folder / "notebook.ipynb").write_text(nbformat.writes(notebook))
    done = subprocess.run(
        [python, "-c", "from nbclient.cli import main; main()", "--inplace", "notebook.ipynb"],
        cwd=folder, env=os.environ | {"PIP_NO_INDEX": "1", "PYTHONPATH": "", "COLAB_RELEASE_TAG": "2026.08"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    text = "".join(o.get("text", "") for c in executed.cells for o in c.get("outputs", []))
    assert "mounted /content/drive" in text
    assert f"{python.parent.parent}/lib" in text  # r1nb was installed from the wheel
    assert "runs_dir=/content/drive/MyDrive/r1nb" in text
    assert "gave the trained policy's answer to 8 of 8 problems" in text
    (run,) = (folder / "runs").iterdir()
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("tiny-cpu", "learning_rate=fast", "learning_rate = 'fast'"),
        ("tiny-cpu", "recipe=tiny-cp", "did you mean 'tiny-cpu'"),
        ("tiny-cpu", "dataset=nowhere", "dataset = 'nowhere': there is no such file"),
        ("tiny-cpu", "model_name=./nowhere", "not a model folder"),
    ],
)
def test_a_mistake_in_r1nb_set_ends_make_train_with_one_sentence(tmp_path, name, settings, words):
    environment = os.environ | {"R1NB_SET": f"{settings} runs_dir={tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-m", "r1nb.train", name],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("r1nb: ")
    assert words in last
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())  # no run was begun
