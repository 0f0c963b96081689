"""`make lab` opens on the notebooks, and the link to a report opens from a notebook."""

import re
import subprocess

import pytest
from test_lab import run_all, save_notebook, written
from written_run import write_run

from r1nb.paths import CHECKOUT

CELL = """
from r1nb import Run, write_report
from r1nb.views import Link
run = Run({!r})
display(Link("Report", write_report(run)), Link("Run folder", run.folder))
"""


def test_make_lab_serves_the_project_and_opens_on_the_notebooks(page, lab, folder):
    said = subprocess.run(["make", "-n", "lab"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "--ServerApp.root_dir=. " in said.stdout  # so that runs/ can be opened, too
    (opened,) = re.findall(r"--LabApp.default_url=(\S+)", said.stdout)
    (folder / "notebooks").mkdir(exist_ok=True)
    save_notebook(folder / "notebooks", "only_here.ipynb", "1")
    page.goto(f"{lab}{opened}?reset")
    page.get_by_label("File Browser Section").get_by_text("only_here.ipynb").wait_for()


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        (r"^\.\./runs/.*/report\.html$", lambda page: page.frame_locator("iframe").get_by_role("heading")),
        (r"^recipe\.yaml$", lambda page: page.locator(".jp-FileEditor").get_by_text("max_steps")),
    ],
    ids=["report", "file of the run folder"],
)
def test_links_open_from_a_notebook(open_notebook, folder, shots, text, opened):
    run = write_run(written(folder, "runs"), 3)
    (folder / "notebooks").mkdir(exist_ok=True)
    save_notebook(folder / "notebooks", "links.ipynb", CELL.strip().format(str(run.folder)))
    page = open_notebook("notebooks/links.ipynb")
    run_all(page)
    link = page.locator(".jp-OutputArea a", has_text=re.compile(text))
    link.wait_for()
    shots(page, ".jp-Cell", "link")
    link.click()
    opened(page).first.wait_for()
