"""The project as a whole: pins, wheel, and how light it is to import."""

import ast
import subprocess
import sys
import tomllib
import zipfile

import yaml
from conftest import ROOT


def test_conda_and_pip_pin_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ours = {*project["dependencies"], *extras["notebook"], *extras["rewards"], *extras["gym"], *extras["gpu"]}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert set(pip) == ours


def test_importing_r1nb_is_quick():
    code = "import time; start = time.perf_counter(); import r1nb; print(time.perf_counter() - start)"
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert min(seconds) < 0.3


def test_importing_r1nb_loads_nothing_heavy():
    code = (
        "import sys, r1nb, r1nb.machine.engine, r1nb.machine.plan, r1nb.text.prompts, r1nb.rewards, r1nb.recipes.recipe, r1nb.runs.run;"
        "import r1nb.policy.loading, r1nb.tasks.rows, r1nb.machine.out_of_memory, r1nb.machine.model_files, r1nb.studies.bench;"
        "print([m for m in ('torch', 'unsloth', 'vllm', 'trl', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def code_lines(text: str) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    documentation = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation.update(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.split("#")[0].strip()) for n, line in lines if n not in documentation)


def test_the_package_stays_small():
    texts = {str(file): file.read_text() for file in (ROOT / "r1nb").rglob("*.py")}
    assert max(len(text.splitlines()) for text in texts.values()) <= 320
    assert sum(map(code_lines, texts.values())) <= 5510


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
        "r1nb/report.html",
        "r1nb/_data/tiny-policy/model.safetensors",
        "r1nb/_notebooks/03_train_grpo.ipynb",
    ):
        assert name in names
    # From the wheel alone, in another folder, the same recipe and rows are found.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import r1nb; from r1nb.recipes.recipe import load_recipe; from r1nb.tasks.rows import load_rows;"
        "r = load_recipe(); print(r1nb.__file__, len(load_rows('bundled', 'train')), r.name);"
        "from r1nb.policy.loading import load_policy; load_policy(r)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == [str(tmp_path / "site/r1nb/__init__.py"), "1500", "tiny-cpu"]
