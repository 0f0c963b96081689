"""What a run is, in one line: it is right, and no damaged run raises an error."""

import os
from datetime import datetime

import pytest
import yaml
from written_run import IDEAL, write_run

from r1nb.rewards.grading import Graded
from r1nb.runs.run import Run
from r1nb.views.progress import describe, short

RUBBISH = [b"", b"{", b"null", b"7", b'"text"', b"\xff\x00", b'{"test": 5}', b'{"test": {"before": null}}',
           b'{"test": {"before": {"strict": "x"}, "after": {"strict": []}}}',
           b'{"test": {"before": {"strict": NaN}, "after": {"strict": NaN}}}']  # fmt: skip


def graded(right: int, of: int) -> list[Graded]:
    return [Graded("4 * 6?", "24", IDEAL, (1,), False, i < right, i < right, True, {}) for i in range(of)]


@pytest.fixture
def run(tiny_recipe):
    tiny_recipe.grpo["max_steps"] = 64
    return write_run(tiny_recipe.model_copy(update={"name": "first-try"}), 24)


def at(run, moment: datetime):
    os.utime(run.folder / "recipe.yaml", (moment.timestamp(),) * 2)
    return Run(run.folder)


def test_a_run_is_described_by_its_name_model_data_result_and_date(run):
    year = datetime.now().year
    run = at(run, datetime(year, 1, 6, 9, 5))
    assert describe(run) == "first-try-001 · tiny-policy · bundled · step 24 of 64 · 6 Jan 09:05"
    run.write_evaluation("before", {"test": graded(0, 7), "hard": graded(7, 7)})
    assert " · step 24 of 64 · " in describe(run)  # not yet measured after training
    run.write_evaluation("after", {"test": graded(6, 7), "hard": graded(1, 7)})
    assert describe(run) == "first-try-001 · tiny-policy · bundled · 0 → 86 % · 6 Jan 09:05"
    assert describe(at(run, datetime(year - 1, 11, 26))).endswith(f" · 26 Nov {year - 1}")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("unsloth/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("/home/me/my problems/", "my problems"),
        ("C:\\Users\\me\\gsm8k.jsonl", "gsm8k.jsonl"),
        ("x" * 90, "x" * 35 + "…"),
        (5, "5"),
    ],
)
def test_a_path_or_name_is_shortened(value, words):
    assert short(value) == words


@pytest.mark.parametrize("content", RUBBISH)
@pytest.mark.parametrize("name", ["evaluation.json", "history.jsonl", "recipe.yaml", "environment.json"])
def test_no_damaged_file_raises_an_error(run, name, content):
    (run.folder / name).write_bytes(content)
    said = describe(Run(run.folder))
    assert said.startswith("first-try-001 · ")
    assert "nan" not in said
    if name == "evaluation.json":
        assert " · bundled · step 24 of 64 · " in said


@pytest.mark.parametrize("section", ["model", "data", "grpo", "sft"])
@pytest.mark.parametrize("value", [None, 5, "text", [], {}])
def test_no_damaged_section_raises_an_error(run, section, value):
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(run.recipe | {section: value}))
    said = describe(Run(run.folder))
    assert said.startswith("first-try-001 · ")
    assert "\n" not in said


def test_a_run_that_was_deleted_raises_no_error(run):
    for path in sorted(run.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run.folder.rmdir()
    assert describe(run).startswith("first-try-001 · ")


def test_markup_and_control_characters_of_a_damaged_recipe_are_visible(run):
    run.recipe["model"]["model_name"] = "a\u202eb\x1b[31m"
    assert "a[U+202E]b␛[31m" in describe(run)
