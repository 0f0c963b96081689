"""The run folder: opened while it is written, after a crash, and never overwritten."""

import json

import pytest

from r1nb.errors import UserError
from r1nb.runs import Run


def test_a_new_run_gets_a_new_folder(tiny_recipe):
    first, second = Run.create(tiny_recipe), Run.create(tiny_recipe)
    assert (first.name, second.name) == ("tiny-cpu-001", "tiny-cpu-002")
    assert first.recipe() == tiny_recipe
    environment = json.loads((first.folder / "environment.json").read_text())
    assert environment["versions"]["trl"]


def test_a_torn_last_line_is_left_out(tiny_recipe):
    run = Run.create(tiny_recipe)
    run.append({"step": 1, "reward": 0.5})
    with (run.folder / "history.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    assert Run(run.folder).history() == [{"step": 1, "reward": 0.5}]
    assert run.series("reward") == ([1], [0.5])


def test_the_history_follows_a_run_that_is_being_written(tiny_recipe):
    writer = Run.create(tiny_recipe)
    reader = Run(writer.folder)
    assert reader.history() == []
    for step in (1, 2, 3):
        writer.append({"step": step, "reward": step / 10})
        assert reader.series("reward")[0] == list(range(1, step + 1))


def test_latest_is_the_newest_finished_run(tiny_recipe):
    runs = [Run.create(tiny_recipe) for _ in range(3)]
    folder = tiny_recipe.output.runs_dir
    assert Run.latest(folder) is None
    runs[0].adapter.mkdir()
    assert Run.latest(folder).name == runs[0].name


def test_another_folder_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        Run(tmp_path)
