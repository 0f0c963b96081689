"""The report of a run, finished or not, is one file without active content."""

import errno
import html
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from written_run import HOSTILE, IDEAL, write_run

from r1nb.errors import UserError
from r1nb.rewards.grading import Graded
from r1nb.training.resume import new_run
from r1nb.views.report import write_report

VALIDATED = "1.7% of 60 validation problems right after step 1"


class Tags(HTMLParser):
    """Collect every start tag with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_a_report_has_alarms_curves_recipe_versions_and_answers(tiny_recipe):
    run = write_run(tiny_recipe, 40)
    run.append({"step": 40, "alarm": "cut_off", "sentence": "Too <short>."})
    text = write_report(run).read_text()
    for word in ("tiny-cpu-001", "Step 40 of 2", "Alarm at step 40: Too &lt;short&gt;.",
                 "data:image/png;base64,", "max_completion_length: 112", "&#34;trl&#34;", "after step 32",
                 "advantage"):  # fmt: skip
        assert word in text, word


def test_a_report_loads_no_other_file(tiny_recipe):
    text = write_report(write_run(tiny_recipe, 3)).read_text()
    for tag, attributes in Tags(text).found:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        assert attributes.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") or name == "href" for name in attributes)
    assert "default-src 'none'" in text


def test_a_run_without_steps_has_a_report(tiny_recipe):
    text = write_report(new_run(tiny_recipe)).read_text()
    assert "No alarms." in text
    assert '<p class="lead">No accuracy yet</p>' in text
    assert "<img" not in text
    assert "<h2>Accuracy" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_completions_is_escaped(tiny_recipe, text):
    run = write_run(tiny_recipe, 2, texts=(text, IDEAL))
    run.write_evaluation("before", {"test": answered(text, False)})
    run.write_evaluation("after", {"test": answered(text, True)})
    page = write_report(run).read_text()
    assert page.count("<article>") == 1
    found = [tag for tag, _ in Tags(page).found]
    assert (found.count("img"), found.count("b"), found.count("script"), found.count("style")) == (
        1,
        0,
        0,
        1,
    )
    assert not any(mark in page for mark in "\x1b\u202e\u200f")


def test_the_report_of_a_run_on_read_only_media_is_written_elsewhere(
    tiny_recipe, tmp_path, monkeypatch, capsys
):
    run, write = write_run(tiny_recipe, 2), Path.write_text

    def refuse(path, *arguments, **options):
        if path.is_relative_to(closed):
            raise OSError(errno.EROFS, "Read-only file system")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    closed = run.folder
    assert write_report(run) == tmp_path / "work" / "tiny-cpu-001-report.html"
    assert "cannot be written to (Read-only file system), so its report is" in capsys.readouterr().out
    closed = tmp_path
    monkeypatch.setattr(tempfile, "mkdtemp", lambda: str(tmp_path))
    with pytest.raises(UserError, match="No report could be written"):
        write_report(run)
    assert not (run.folder / "report.html").exists()


def answered(text: str, *verdicts) -> list[Graded]:
    """Return an answer to each problem, with its verdict."""
    return [
        Graded(f"Question {i}?", "24", text, (1,), i == 0, strict, strict, False, {}, steps=i)
        for i, strict in enumerate(verdicts)
    ]


def evaluated_run(recipe, before=(False,) * 8, after=(True,) * 6 + (False,) * 2, texts=("24", IDEAL)):
    run = write_run(recipe, 3)
    run.write_evaluation("before", {"test": answered(texts[0], *before)})
    run.write_evaluation("after", {"test": answered(texts[1], *after)})
    return run


def visible_text(page: str) -> str:
    """Return the text of a page without tags, from the name of the run on."""
    return html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<h1>")[2]))


def test_a_report_leads_with_accuracy_then_the_picture_then_telling_answers(tiny_recipe):
    page = write_report(evaluated_run(tiny_recipe)).read_text()
    places = [
        page.index(words)
        for words in (
            "tiny-cpu-001</h1>", "0.0% → 75.0% of 8 problems right", "75.0% [40.9, 92.9] after training",
            "Difference: +75.0 points [+37.5, +100.0], McNemar&#39;s exact test: p = 0.031.", "No alarms.",
            "data:image/png", "<h2>What changed", "<article>", "<h2>Accuracy before and after",
            "<h2>Problem by problem: test", "<h2>Recipe",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert page.count("<article>") == 5
    card = " ".join(visible_text("<h1>" + page.split("<article>")[1]).split())
    assert card.startswith(
        "Question: Question 5? Right answer: 24 ✗ wrong before training 24 ✓ right after training <reasoning>"
    )


def test_answers_that_got_worse_are_shown_first(tiny_recipe):
    run = evaluated_run(tiny_recipe, before=(True, False, True, False), after=(False, True, True, False))
    text = visible_text(write_report(run).read_text())
    assert "Of 4 problems of test, 1 went from wrong to right and 1 from right to wrong." in " ".join(
        text.split()
    )
    assert text.index("✓ right before training") < text.index("✗ wrong before training")
    assert "24 ✂ cut off" in text


@pytest.mark.parametrize(
    ("before", "after", "lead", "meaning"),
    [
        ([False] * 3 + [True], [], VALIDATED, "25.0% [4.6, 69.9] before training."),
        ([], [True] * 4, "100.0% of 4 problems right after training", "100.0% [51.0, 100.0] after training."),
        ([None], [None], VALIDATED, "There is no accuracy on test problems after"),
        ([True], [True], "100.0% → 100.0% of 1 problems right", "Difference: +0.0 points, McNemar's exact"),
    ],
)  # fmt: skip
def test_a_report_says_what_is_known_so_far(tiny_recipe, before, after, lead, meaning):
    run = write_run(tiny_recipe, 3)
    for moment, verdicts in {"before": before, "after": after}.items():
        if verdicts:
            run.write_evaluation(moment, {"test": answered("24", *verdicts)})
    text = visible_text(write_report(run).read_text())
    assert lead in text
    assert meaning in text
    assert "nan" not in text
    assert ("What changed" in text) == ("→" in lead)
