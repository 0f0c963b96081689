"""The project as a whole: pinned versions, wheel, and what an import loads."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from r1nb.paths import CHECKOUT as ROOT


def test_conda_and_pip_pin_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ours = {*project["dependencies"], *extras["notebook"], *extras["rewards"], *extras["gym"], *extras["gpu"]}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert set(pip) == ours


HEAVY = ("torch", "unsloth", "vllm", "trl", "transformers")


def loaded_by(code: str) -> str:
    """Return the heavy modules that some code loads in a fresh process."""
    code += f"; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_importing_r1nb_and_reading_a_recipe_loads_nothing_heavy():
    assert loaded_by("import r1nb; dir(r1nb); r1nb.load_recipe(); r1nb.Run; r1nb.load_rows") == "[]"
    assert (
        loaded_by("from r1nb.rewards import correctness_reward_func, math_reward_func, judge_reward_func")
        == "[]"
    )
    assert loaded_by("import r1nb.machine.engine, r1nb.machine.plan, r1nb.policy.loading") == "[]"


ROOMS = [path.parent.name for path in sorted((ROOT / "r1nb").glob("*/__init__.py"))]


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_name_can_be_imported(room):
    catalogue = importlib.import_module(f"r1nb.{room}" if room else "r1nb")
    assert len(catalogue.__all__) > 0
    for name in catalogue.__all__:
        assert getattr(catalogue, name) is not None
    assert set(catalogue.__all__) <= set(dir(catalogue))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("r1nb/text/numbers.py", "from r1nb.rewards.five import int_reward_func"),
        ("r1nb/runs/run.py", "from r1nb.recipes.loading import load_recipe; from r1nb.policy import policy"),
        ("r1nb/views/html.py", "from r1nb.views.report import write_report"),
        ("r1nb/training/stages.py", "from r1nb import load_recipe"),
        ("r1nb/training/stages.py", "def late():\n    from r1nb.views import plots"),
    ],
)
def test_lint_refuses_imports_against_the_order_of_the_folders(tmp_path, file, line):
    shutil.copytree(ROOT / "r1nb", tmp_path / "r1nb")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def lint() -> int:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode

    assert lint() == 0
    with (tmp_path / file).open("a") as module:
        module.write(f"\n\n{line}\n")
    assert lint() == 1


def test_the_wheel_carries_recipes_data_and_notebooks(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "r1nb/recipes/tiny-cpu.yaml",
        "r1nb/launch/zero3.yaml",
        "r1nb/launch/README.md",
        "r1nb/_data/problems/train.jsonl",
        "r1nb/_data/samples/group.json",
        "r1nb/rewards/five.py",
        "r1nb/views/report.html",
        "r1nb/rewards/__init__.py",
        "r1nb/views/__init__.pyi",
        "r1nb/_data/tiny-policy/model.safetensors",
        "r1nb/_notebooks/03_train_grpo.ipynb",
    ):
        assert name in names
    # With only the wheel and in another folder, the recipe and the rows are found.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import r1nb; from r1nb import load_policy, load_recipe, load_rows;"
        "r = load_recipe(); print(r1nb.__file__, len(load_rows('bundled', 'train')), r.name);"
        "load_policy(r)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == [str(tmp_path / "site/r1nb/__init__.py"), "1500", "tiny-cpu"]
