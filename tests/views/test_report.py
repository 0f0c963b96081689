"""The report of a run, finished or not, is one file without active content."""

import errno
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from written_run import HOSTILE, IDEAL, write_run

from r1nb.errors import UserError
from r1nb.training.resume import new_run
from r1nb.views.report import write_report


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
    for word in ("tiny-cpu-001", "Step 40 of 2", "Step 40: Too &lt;short&gt;.", "data:image/png;base64,",
                 "max_completion_length: 112", "&#34;trl&#34;", "after step 32", "advantage"):  # fmt: skip
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
    assert "None was raised." in text
    assert "Accuracy" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_completions_is_escaped(tiny_recipe, text):
    page = write_report(write_run(tiny_recipe, 2, texts=(text, IDEAL))).read_text()
    found = [tag for tag, _ in Tags(page).found]
    assert (found.count("img"), found.count("b"), found.count("script"), found.count("style")) == (
        1,
        0,
        0,
        found.count("table") + 1,
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
