"""The README's example runs as it stands there."""

import re

from r1nb.paths import CHECKOUT as ROOT
from r1nb.rewards.registry import _OWN


def test_your_own_task_in_15_lines(monkeypatch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 15
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1NB_SET", "max_steps=1 per_device_train_batch_size=8 torch_threads=1")
    monkeypatch.setattr("r1nb.rewards.registry._OWN", dict(_OWN))  # the example adds to it
    exec(compile(code, "README.md", "exec"), {})
    assert list((tmp_path / "runs/brief/completions").iterdir())


def test_setup_is_exactly_two_commands():
    (block,) = re.findall(r"## Two commands\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make train", "make test"]
