"""A notebook on Colab or Kaggle, with stand-ins: the restart, the GPU, the folder of the runs, the secret."""

import json
import os
import shutil
import subprocess
import sys
import time
import types

import pytest

from r1nb.errors import UserError
from r1nb.machine import engine, hosted
from r1nb.machine.hosted import prepare_notebook
from r1nb.paths import DATA
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_splits

SECRET = "hf_abcdef"


@pytest.fixture(autouse=True)
def session(monkeypatch, tmp_path):
    """A new session without GPUs, in a folder of its own."""
    for name in ("R1NB_SET", "HF_TOKEN", "CUDA_VISIBLE_DEVICES", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(hosted, "replaced", list)
    monkeypatch.setattr(hosted, "DRIVE", tmp_path / "drive")
    monkeypatch.setattr(hosted, "KAGGLE", tmp_path / "working")
    monkeypatch.setattr(engine.glob, "glob", lambda pattern: [])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def colab(monkeypatch, session):
    """Stand-ins for Colab's modules; returns its secrets."""
    secrets = {}
    module = types.ModuleType("google.colab")
    module.userdata = types.SimpleNamespace(get=lambda name: secrets[name])
    module.drive = types.SimpleNamespace(
        mount=lambda path: (session / "drive" / "MyDrive").mkdir(parents=True)
    )
    monkeypatch.setitem(sys.modules, "google.colab", module)
    return secrets


@pytest.fixture
def kaggle(monkeypatch):
    """A stand-in for Kaggle's module; returns its secrets."""
    secrets = {}
    module = types.ModuleType("kaggle_secrets")
    module.UserSecretsClient = lambda: types.SimpleNamespace(get_secret=lambda label: secrets[label])
    monkeypatch.setitem(sys.modules, "kaggle_secrets", module)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    return secrets


def test_on_colab_runs_end_with_the_session_which_is_said_with_the_remedy(colab, session, capsys):
    prepare_notebook()
    assert os.environ["R1NB_SET"] == f"runs_dir={session / 'runs'}"
    assert "which ends with the session: DRIVE = True keeps them on your Drive." in capsys.readouterr().out


@pytest.mark.parametrize("mounted", [False, True])
def test_on_colab_runs_are_kept_on_a_mounted_drive(colab, session, capsys, mounted):
    if mounted:  # by the user
        (session / "drive" / "MyDrive").mkdir(parents=True)
    prepare_notebook(drive=not mounted)
    assert os.environ["R1NB_SET"] == f"runs_dir={session / 'drive' / 'MyDrive' / 'r1nb'}"
    assert "on your Google Drive. An unfinished run is resumed" in capsys.readouterr().out


def test_on_kaggle_runs_go_to_the_folder_that_is_kept(kaggle, session, capsys):
    prepare_notebook(drive=True)  # Kaggle has no Drive
    assert os.environ["R1NB_SET"] == f"runs_dir={session / 'working' / 'runs'}"
    assert "Persistence: Files" in capsys.readouterr().out


def test_other_settings_of_r1nb_set_are_kept_and_the_users_folder_counts(kaggle, session, monkeypatch):
    monkeypatch.setenv("R1NB_SET", "max_steps=5")
    prepare_notebook()
    prepare_notebook()  # the cell is run again
    assert os.environ["R1NB_SET"] == f"max_steps=5 runs_dir={session / 'working' / 'runs'}"
    monkeypatch.setenv("R1NB_SET", "runs_dir=/elsewhere")
    prepare_notebook()
    assert os.environ["R1NB_SET"] == "runs_dir=/elsewhere"


@pytest.mark.parametrize("service", ["colab", "kaggle"])
def test_the_secret_becomes_hf_token_and_is_never_printed(service, request, capsys):
    secrets = request.getfixturevalue(service)
    prepare_notebook()
    assert "HF_TOKEN" not in os.environ  # an absent secret is no error
    secrets["HF_TOKEN"] = SECRET
    prepare_notebook()
    assert os.environ["HF_TOKEN"] == SECRET
    assert SECRET not in "".join(capsys.readouterr())


def test_a_token_that_is_set_already_is_kept(colab, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    colab["HF_TOKEN"] = SECRET
    prepare_notebook()
    assert os.environ["HF_TOKEN"] == "hf_mine"


def test_of_two_gpus_one_is_used_which_is_said_once(kaggle, monkeypatch, capsys):
    monkeypatch.setattr(engine.glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
    prepare_notebook()
    engine.use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert capsys.readouterr().out.count("This machine has 2 GPUs, and r1nb uses the first") == 1


def test_a_choice_of_gpus_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(engine.glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    engine.use_one_gpu()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    engine.use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("service", "menu"), [("colab", "Runtime"), ("kaggle", "Run")])
def test_replaced_packages_ask_for_one_restart(service, menu, request, monkeypatch):
    request.getfixturevalue(service)
    monkeypatch.setattr(hosted, "replaced", lambda: ["numpy", "pandas"])
    with pytest.raises(
        UserError, match=f"Restart the session once .{menu} > .* replaced numpy, pandas, already"
    ):
        prepare_notebook()
    assert "R1NB_SET" not in os.environ


def test_a_saved_version_of_kaggle_cannot_restart_and_goes_on(kaggle, session, monkeypatch, capsys):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(hosted, "replaced", lambda: ["numpy"])
    prepare_notebook()
    assert (
        "If something fails below, this may be why: the installation replaced numpy"
        in capsys.readouterr().out
    )
    assert os.environ["R1NB_SET"] == f"runs_dir={session / 'working' / 'runs'}"


def test_the_gpu_is_chosen_before_torch_is_imported():
    code = "import sys; from r1nb.machine import prepare_notebook; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# An installation replaces one package that this session has imported, and one that it has not.
REPLACED = """
import sys, importlib, pathlib
site = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(site))
import early, kept
for name in ("early", "late"):
    (site / f"{name}.py").write_text("version = 2")
importlib.invalidate_caches()
from r1nb.machine.hosted import replaced
import late
print(replaced())
"""


def test_only_what_was_imported_before_its_files_changed_asks_for_a_restart(tmp_path):
    site = tmp_path / "dist-packages"
    site.mkdir()
    for name in ("early", "kept", "late"):
        (site / f"{name}.py").write_text("version = 1")
        os.utime(site / f"{name}.py", (1e9, 1e9))
    command = [sys.executable, "-c", REPLACED, str(site)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout.strip() == "['early']"
    os.utime(site / "early.py", (time.time() - 5,) * 2)  # a restart takes seconds
    second = REPLACED.replace("write_text", "read_text").replace('"version = 2"', "")  # after the restart
    again = subprocess.run([*command[:2], second, str(site)], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "[]"


def test_nothing_is_written_into_folders_that_cannot_be_written_to(session):
    """Kaggle's /kaggle/input is read-only; the owner of these tests may be root, who can write anywhere."""
    given = session / "input"
    shutil.copytree(DATA / "tiny-policy", given / "model")
    (given / "data").mkdir()
    for split, first in (("train", 0), ("test", 40)):
        rows = [
            {"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(first, first + 40)
        ]
        (given / "data" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = {path: path.stat().st_mtime_ns for path in given.rglob("*")}
    recipe = load_recipe(
        "tiny-cpu", model_name=str(given / "model"), dataset=str(given / "data"), validation_rows=4,
        validation_split=None, test_splits="test", runs_dir=str(session / "runs"),
    )  # fmt: skip
    assert len(load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]) == 36
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    assert policy.generate([recipe.layout.build_messages("What is 1 + 1?")], recipe.greedy)
    assert {path: path.stat().st_mtime_ns for path in given.rglob("*")} == before
