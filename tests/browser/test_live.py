"""The live panel in a browser: it answers while the cell trains, and leaves a picture."""

import nbformat
import pytest
from test_lab import open_inspector, save_notebook, written
from written_run import write_run

from r1nb.views.group import groups_html, with_verdicts
from r1nb.views.tables import completion_table

RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"  # does not wait


NO_SUBSHELLS = """() => {
    window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.commsOverSubshells = 'disabled'
}"""


def open_training(folder, open_notebook, name: str, runs: str, before: str = "() => {}"):
    save_notebook(
        folder, name,
        "from r1nb.recipes.loading import load_recipe; from r1nb.train import train\n"
        "recipe = load_recipe('tiny-five-rewards', per_device_train_batch_size=16,\n"
        "    test_problems=8, validation_problems=8, eval_every=8, torch_threads=1,\n"
        f"    runs_dir={str(folder / runs)!r})\n"
        "run, proof = train(recipe)",
        "print('the next cell')",
    )  # fmt: skip
    page = open_notebook(name)
    page.evaluate(before)
    page.evaluate(RUN_ALL)
    return page


def test_the_panel_is_live_while_the_cell_trains(open_notebook, folder, shots):
    page = open_training(folder, open_notebook, "live.ipynb", "live")
    panel = page.locator(".r1nb-inspector")
    panel.wait_for(state="visible", timeout=300_000)
    page.wait_for_function(
        "() => /step ([3-9]|1\\d) of 40/.test(document.querySelector('.r1nb-status').innerText)"
    )
    shots(page, ".r1nb-inspector", "live-panel")
    handle = panel.locator(".r1nb-step .noUi-handle")
    handle.focus()
    handle.press("Home")
    page.wait_for_function("() => document.querySelector('.r1nb-values').innerText.includes('at step 0')")
    panel.locator(".r1nb-stop").click()
    page.wait_for_function(
        "() => document.querySelector('.r1nb-status').innerText.includes('stopping after this step')",
        timeout=2_000,
    )
    page.get_by_text("run again to resume").wait_for(timeout=60_000)
    assert panel.count() == 0
    assert page.locator(".jp-OutputArea img").count() == 1


def test_without_subshells_the_panel_stays_a_picture_that_moves(open_notebook, folder):
    page = open_training(folder, open_notebook, "picture.ipynb", "picture", NO_SUBSHELLS)
    cell = page.locator(".jp-CodeCell").first
    picture = cell.locator("img:visible")
    picture.first.wait_for(timeout=300_000)
    seen = set()
    while "*" in cell.locator(".jp-InputPrompt").inner_text():
        if picture.count():
            seen.add(picture.first.get_attribute("src"))
        assert not page.locator(".r1nb-stop").is_visible()
        page.wait_for_timeout(200)
    assert len(seen) > 1
    assert cell.locator("img").count() == 1
    assert "step 40 of 40" in cell.inner_text()
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


@pytest.mark.parametrize("width", [1280, 1100, 700])
def test_advantage_and_total_of_a_completion_are_seen_at_any_width(open_notebook, folder, width):
    write_run(written(folder, f"wide-{width}"), 64)
    page = open_inspector(folder, open_notebook, f"wide-{width}.ipynb", f"wide-{width}")
    page.set_viewport_size({"width": width, "height": 800})
    box = page.locator(".r1nb-completions")
    box.scroll_into_view_if_needed()
    frame = box.bounding_box()
    for text in ("+1.06", "total "):
        seen = box.get_by_text(text).first.bounding_box()
        assert frame["x"] <= seen["x"]
        assert seen["x"] + seen["width"] <= min(width, frame["x"] + frame["width"])
    if width == 1280:
        assert page.locator(".r1nb-inspector").bounding_box()["height"] < 700  # one screen below Lab's menus


def test_tables_of_an_untrusted_notebook_are_aligned(open_notebook, folder):
    run = write_run(written(folder, "untrusted"), 3)
    log = with_verdicts(run.completions(3), run)
    shown = [completion_table(run, [3], each=4).to_html(), groups_html(log, run)]
    outputs = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in shown]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "untrusted.ipynb")
    page = open_notebook("untrusted.ipynb")
    cells = page.locator(".jp-OutputArea td")
    cells.first.wait_for()
    aligned = cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell).textAlign)")
    assert len(aligned) > 20
    assert set(aligned) == {"left"}
    bars = page.locator(".jp-OutputArea span").evaluate_all("all => all.map(span => span.offsetHeight)")
    assert 9 in bars  # pixels of the bar of an advantage
