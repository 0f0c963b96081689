"""A run folder with torn files is opened with what it still holds, and one broken run hides no other."""

import json
import os

import pandas
import pytest
import yaml
from written_run import write_run

from r1nb.errors import UserError, say_once
from r1nb.paths import read_json
from r1nb.rewards.grading import Graded
from r1nb.runs.evaluations import MOMENTS
from r1nb.runs.run import CARD, Run
from r1nb.views.plots import png, training_curves
from r1nb.views.progress import progress
from r1nb.views.report import write_report
from r1nb.views.tables import accuracy_table, answers_table, completion_table
from r1nb.widgets.inspector import Inspector

GRADED = Graded("How much is 4 times 6?", "24", "24", (1,), False, False, True, False, {})
RUBBISH = [b"", b"{", b"null", b"[[[1", b"\xff\xfe\x00", b"\x00" * 99, b"7", b'"text"']


@pytest.fixture(autouse=True)
def said_anew():
    say_once.cache_clear()


@pytest.fixture
def run(tiny_recipe):
    run = write_run(tiny_recipe, 16)
    for moment in ("before", "prefilled", "after"):
        run.write_evaluation(moment, {"test": [GRADED], "hard": [GRADED]})
        run.write_samples(moment, "test", [[GRADED]])
    return run


def test_a_run_with_a_torn_recipe_hides_no_other_run(run, capsys):
    text, parent = (run.folder / "recipe.yaml").read_text(), run.folder.parent
    sections = ("lora:", "target_modules: ", "grpo:", "max_steps: ", "rewards:", "int_reward_func: ")
    ends = [0, 30, *(text.index(part) + len(part) for part in sections)]
    (parent / "copied-nameless" / "adapter").mkdir(parents=True)
    (parent / "copied-nameless" / "recipe.yaml").write_text(text.replace("name: tiny-cpu\n", ""))
    for end in ends:
        (parent / f"copied-{end}" / "adapter").mkdir(parents=True)
        (parent / f"copied-{end}" / "recipe.yaml").write_text(text[:end])
        os.utime(parent / f"copied-{end}" / "recipe.yaml", (2e9, 2e9))
    run.adapter.mkdir()
    for folder in parent.glob("*/adapter"):
        (folder / CARD).write_text("{}")
    assert [found.name for found in Run.all(str(parent))] == [run.name]
    assert Run.latest(str(parent)).name == run.name
    assert list(Inspector(str(parent)).runs) == [run.name]
    said = capsys.readouterr().out
    assert all(said.count(f"runs/copied-{end}/recipe.yaml is not a recipe") == 1 for end in ends)
    with pytest.raises(UserError, match=r"runs/copied-0/recipe\.yaml is not a recipe, or it is damaged"):
        Run(parent / "copied-0").recipe  # noqa: B018


@pytest.mark.parametrize("content", RUBBISH)
def test_a_torn_json_file_is_named_once(tmp_path, capsys, content):
    (tmp_path / "some.json").write_bytes(content)
    for otherwise in ({}, {"a": 1}):
        assert read_json(tmp_path / "some.json", otherwise) is otherwise
    assert capsys.readouterr().out.count("some.json cannot be read (") == 1
    assert read_json(tmp_path / "none.json", 5) == 5
    assert not capsys.readouterr().out


def test_torn_files_are_named_and_the_others_are_shown(run, capsys):
    for name in ("environment.json", "evaluation/after-hard.json", "evaluation/after-test-samples.json",
                 "validation/00016.json"):  # fmt: skip
        (run.folder / name).write_bytes(b"{")
    run = Run(run.folder)
    write_report(run)
    assert list(accuracy_table(run).data.columns[1:]) == [
        (f"{s} (1)", m) for s in ("test", "hard") for m in MOMENTS.values()
    ]
    assert list(answers_table(run, 3).data.columns) == ["question", "gold", "after step 1"]
    assert png(training_curves(run))
    said = capsys.readouterr().out
    assert said.count("cannot be read (") == 4
    (run.folder / "evaluation.json").write_bytes(b"")
    assert len(accuracy_table(run).data) == 0


def test_only_the_split_whose_answers_are_torn_or_missing_is_left_out(run, capsys):
    (run.folder / "evaluation" / "after-test.json").write_text('[{"question"')
    assert list(run.graded("after")) == ["hard"]
    (run.folder / "evaluation" / "after-hard.json").unlink()
    assert run.graded("after") == {}
    (run.folder / "evaluation" / "before-test.json").write_text('[{"question": "of another version"}]')
    assert list(run.graded("before")) == ["hard"]
    said = capsys.readouterr().out
    assert "after-hard.json is missing" in said
    assert "before-test.json cannot be read" in said


def test_damaged_lines_of_the_history_are_left_out(run):
    path = run.folder / "history.jsonl"
    before = run.history()
    lines = [b"\0", b"7", b"[]", b"null", b'{"reward": 1}', b'{"step": null}', b"\xff", b'{"step": "x"}', b""]
    path.write_bytes(b"\n".join([*lines, path.read_bytes() + lines[0], *lines]))
    damaged = Run(run.folder)
    assert damaged.history() == before
    assert progress(damaged)[0] == 16
    assert png(training_curves(damaged))


def test_copies_that_a_synced_drive_adds_are_no_steps(run):
    for folder, name in (("validation", "00016 (1).json"), ("completions", "completions_00016 (1).parquet")):
        (run.folder / folder / name).write_bytes(b"")
    assert run.validated() == [1, 16]
    assert run.logged(16) == 16
    assert set(run.completions()["step"]) == set(range(1, 17))


def of_log(change):
    """Change the completion log of step 16."""

    def spoil(folder):
        path = folder / "completions" / "completions_00016.parquet"
        change(pandas.read_parquet(path)).to_parquet(path)

    return spoil


def into_folder(folder):
    (folder / "completions" / "completions_00016.parquet").unlink()
    (folder / "completions" / "completions_00016.parquet").mkdir()


SHAPES = {
    "a log without prompts": (of_log(lambda log: log.drop(columns="prompt")), "no completions of step 16"),
    "a log of texts": (of_log(lambda log: log.assign(advantage="x")), "no completions of step 16"),
    "an empty log": (of_log(lambda log: log[:0]), "no completions of step 16"),
    "a folder": (into_folder, "no completions of step 16"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_another_shape_counts_as_torn(run, capsys, name):
    spoil, words = SHAPES[name]
    spoil(run.folder)
    run = Run(run.folder)
    for table in (accuracy_table(run), answers_table(run, 3), completion_table(run, [15, 16], 2)):
        assert table.to_html()
    assert run.graded("after").keys() <= {"test", "hard"}
    assert run.samples("after").keys() <= {"test"}
    run.best_total()
    assert capsys.readouterr().out.count(words) == 1
    run.undo_after(15)
    assert (run.logged(16), run.validated()) == (15, [1])


def test_a_run_that_cannot_be_drawn_hides_no_other(run):
    other = run.folder.parent / "damaged-001"
    other.mkdir()
    recipe = run.recipe | {"name": "damaged", "data": run.recipe["data"] | {"layout": "of another version"}}
    (other / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (other / "history.jsonl").write_text('{"step": 1, "time": 1.0, "reward": 1.0}\n')
    (other / "completions").symlink_to(run.folder / "completions")
    os.utime(other / "recipe.yaml", (2e9, 2e9))
    inspector = Inspector(str(other.parent))
    assert "damaged-001 cannot be shown (KeyError" in inspector.values.value
    inspector.chosen.value = (run.name,)
    assert "cannot be shown" not in inspector.values.value


def test_a_run_without_its_environment_has_curves_but_no_limits(run):
    (run.folder / "environment.json").unlink()
    run = Run(run.folder)
    assert run.best_total() is None
    assert run.ranges == {}
    assert "tiny-cpu-001" in write_report(run).read_text()
    assert json.dumps(run.environment) == "{}"
