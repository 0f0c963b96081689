"""The panel in a real kernel without a browser, where no message of a widget arrives while a cell runs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TESTS = Path(__file__).parents[1]
BEGIN = """
import sys, threading
sys.path.insert(0, {tests!r})
from written_run import append_step, write_run
from r1nb.recipes.loading import load_recipe
from r1nb.runs.activity import say_now
from r1nb.widgets.panel import Panel
run = write_run(load_recipe(runs_dir={runs!r}), 3)
panel = Panel(run)
panel.draw(run)
"""


@pytest.fixture
def outputs(tmp_path):
    """Return a function that runs lines after BEGIN in one cell, and returns its outputs by type."""

    def run_cell(lines: str) -> list[dict]:
        cell = nbformat.v4.new_code_cell(BEGIN.format(tests=str(TESTS), runs=str(tmp_path / "runs")) + lines)
        notebook = nbformat.v4.new_notebook(cells=[cell])
        options = {"timeout": 120, "store_widget_state": False, "kernel_name": "python3"}
        NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, **options).execute()
        return [output["data"] for output in cell.outputs if output["output_type"] == "display_data"]

    return run_cell


def test_a_picture_and_the_latest_group_change_in_place_and_stay(outputs):
    status, curves, group, widget = outputs("append_step(run, 4, []); panel.draw(run); panel.close()")
    assert "tiny-cpu-001</b>: step 4 of 112" in status["text/html"]
    assert "image/png" in curves
    assert "How much is 4 times 6? (3)" in group["text/html"]
    assert "application/vnd.jupyter.widget-view+json" not in widget


def test_before_the_end_it_says_what_waits_and_how_to_stop(outputs):
    status, *_, widget = outputs("say_now(run, 'measuring accuracy: 4 of 60'); panel.draw(run)")
    assert "measuring accuracy: 4 of 60; step 3 of 112" in status["text/html"]
    assert "The cells below wait until it ends." in status["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in widget


def test_a_message_in_another_thread_puts_the_inspector_in_their_place(outputs):
    message = (
        "thread = threading.Thread(target=panel._on_message, args=({},)); thread.start(); thread.join()\n"
    )
    shown = "assert panel.live and panel.inspector.layout.display == ''\n"
    *static, widget = outputs("panel._on_message({}); assert not panel.live\n" + message + shown)
    assert [data.get("text/html", "?") for data in static] == ["", "", ""]
    assert "application/vnd.jupyter.widget-view+json" in widget
    status, curves, group, widget = outputs(message + "panel.close()\n" + message)  # the last one is too late
    assert "image/png" in curves
    assert status["text/html"]
    assert group["text/html"]
    assert "application/vnd.jupyter.widget-view+json" not in widget
