"""The README is short, its example runs as it is printed, and no page has a dead link."""

import re

import pytest

from r1nb.paths import CHECKOUT as ROOT
from r1nb.rewards.registry import _OWN
from r1nb.runs.run import Run

README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "CONTRIBUTING.md", "data/results/README.md", "r1nb/launch/README.md"]


def test_the_readme_takes_two_minutes():
    assert len(README.split()) <= 900


def test_the_example_of_your_own_task_has_15_lines_and_runs(monkeypatch, tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 15
    monkeypatch.chdir(tmp_path)
    settings = "max_steps=1 per_device_train_batch_size=8 torch_threads=1"
    monkeypatch.setenv("R1NB_SET", f"{settings} runs_dir={tmp_path / 'runs'}")
    monkeypatch.setattr("r1nb.rewards.registry._OWN", dict(_OWN))  # the example adds a reward
    exec(compile(code, "README.md", "exec"), {})
    (run,) = Run.all(tmp_path / "runs")
    assert run.series("reward")[0] == [1]
    assert "{" not in capsys.readouterr().out  # figures and an answer, not TRL's dictionaries


def test_setup_is_exactly_two_commands():
    (block,) = re.findall(r"## Two commands\n.*?```\n(.*?)```", README, re.DOTALL)
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make train", "make test"]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub generates for the headings."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page):
    path = ROOT / page
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link
