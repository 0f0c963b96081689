"""The user interface in a browser: notebook 03 from the menu, inspector, playground, hostile text."""

import re
import threading

import nbformat
import pytest
from written_run import HOSTILE, IDEAL, append_step, write_run

from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.runs.run import Run
from r1nb.views.report import write_report

GAPS = """() => [...document.querySelectorAll('tr')].flatMap(row => {
    const edges = [...row.querySelectorAll('th')].filter(cell => cell.innerText.trim()).map(cell => {
        const text = document.createRange();
        text.selectNodeContents(cell);
        return text.getBoundingClientRect();
    });
    return edges.slice(1).map((edge, i) => edge.left - edges[i].right);
})"""  # the space between the texts of neighbouring headers


def run_all(page) -> None:
    """Run all cells to the end; fail if a cell ends with an error."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    assert errors.count() == 0, errors.first.inner_text()


def written(folder, runs: str, **settings):
    """Return a recipe whose runs are in a folder of the test."""
    return load_recipe(runs_dir=str(folder / runs), max_steps=64, **settings)


def save_notebook(folder, name: str, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}  # or Lab asks for it
    nbformat.write(notebook, folder / name)


def open_inspector(folder, open_notebook, name: str, runs: str):
    save_notebook(
        folder, name, "from r1nb.widgets.inspector import Inspector", f"Inspector({str(folder / runs)!r})"
    )
    page = open_notebook(name)
    run_all(page)
    page.locator(".r1nb-inspector img").wait_for()
    return page


def test_the_live_view_moves_while_notebook_03_trains(open_notebook, folder, shots):
    path = folder / "03_train_grpo.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # redraw at every step, also on a fast machine
        cell.source = cell.source.replace("trainer = Shared", "LiveView.SHARE = 1.0\ntrainer = Shared")
    nbformat.write(notebook, path)
    page = open_notebook("03_train_grpo.ipynb")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    cell = page.locator(".jp-CodeCell", has_text="resumable(trainer")
    cell.locator("img:visible").first.wait_for(timeout=300_000)
    seen, steps, counts = [], [], set()
    while "*" in cell.locator(".jp-InputPrompt").inner_text():
        counts.add(cell.locator("img:visible").count())
        picture = cell.locator("img:visible").first.get_attribute("src")
        said = re.search(r"step (\d+) of 40", cell.locator(".jp-OutputArea").first.inner_text())
        if not seen or picture != seen[-1]:
            seen.append(picture)
        steps.append(int(said[1]) if said else 0)
        page.wait_for_timeout(100)
    assert len(seen) > 2  # it was redrawn
    assert 1 in counts <= {0, 1}  # one picture, in place; none while the live inspector takes over
    assert len(set(steps)) > 2
    assert steps == sorted(steps)
    page.get_by_text("Report: runs/tiny-cpu-001/report.html").wait_for(timeout=300_000)  # the last cell
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert cell.locator("img").count() == 1  # the last picture stays
    assert cell.locator("tbody tr").count() == 8
    shots(page, ".jp-CodeCell:has-text('resumable(trainer') .jp-OutputArea", "live-view")


def test_an_interrupted_notebook_saves_and_resumes(open_notebook, folder):
    page = open_notebook("03_train_grpo.ipynb")
    run_it = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"  # does not wait for it
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.evaluate(run_it)
    cell = page.locator(".jp-CodeCell", has_text="resumable(trainer")
    cell.get_by_text(re.compile(r"step [1-9]\d* of 40")).first.wait_for(timeout=300_000)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    cell.get_by_text("Finishing this step, then saving").first.wait_for(timeout=1_000)
    stopped = cell.get_by_text("saved in runs/tiny-cpu-002: run again to resume")
    stopped.wait_for(timeout=60_000)
    assert "Traceback" not in cell.inner_text()
    (found,) = (folder / "runs" / "tiny-cpu-002").glob("checkpoint-*")
    step = int(found.name.rpartition("-")[2])
    page.evaluate(run_it)  # the kernel still works
    page.get_by_text(f"Resuming after step {step} of 40").wait_for(timeout=240_000)
    page.get_by_text("Report: runs/tiny-cpu-002/report.html").wait_for(timeout=300_000)
    run = Run(folder / "runs" / "tiny-cpu-002")
    assert run.series("reward")[0] == list(range(1, 41))


def test_the_inspector_reacts_to_slider_search_and_choice_of_runs(open_notebook, folder, shots):
    write_run(written(folder, "two", seed=5), 64)
    write_run(written(folder, "two", learning_rate=1e-4), 64, texts=("no tags", "24"))
    page = open_inspector(folder, open_notebook, "inspector.ipynb", "two")
    inspector = page.locator(".r1nb-inspector")
    completions, values = page.locator(".r1nb-completions"), page.locator(".r1nb-values")
    assert "step 64: 8 of 8 completions" in completions.inner_text()
    assert "cut off" in completions.inner_text()
    picture = inspector.locator("img").get_attribute("src")

    handle = inspector.locator(".r1nb-step .noUi-handle")
    handle.focus()
    for _ in range(4):
        handle.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('.r1nb-completions').innerText.includes('step 60:')")
    assert "at step 60" in values.inner_text()
    assert inspector.locator("img").get_attribute("src") == picture  # only the line over it moves

    inspector.get_by_placeholder("text in a completion").fill("TAGS")
    page.wait_for_function("() => document.querySelector('.r1nb-completions').innerText.includes('4 of 8')")
    inspector.get_by_placeholder("text in a completion").fill("")

    inspector.locator("select[multiple]").select_option(index=[0, 1])
    page.get_by_role("tab", name="Comparison").click()
    comparison = page.locator(".r1nb-comparison")
    comparison.get_by_text("grpo.learning_rate").wait_for()
    assert "grpo.seed" in comparison.inner_text()
    assert "max_steps" not in comparison.inner_text()
    page.wait_for_function(  # one line for each run
        "() => document.querySelector('.r1nb-values').innerText.split('at step 60').length === 3"
    )
    page.get_by_role("tab", name="One question").click()
    page.locator(".r1nb-moments").get_by_text("How much is 4 times 6?").last.wait_for()
    assert "after step 64" in page.locator(".r1nb-moments").inner_text()
    page.get_by_role("tab", name="Completions").click()
    shots(page, ".r1nb-inspector", "inspector")


def test_the_inspector_follows_a_run_in_progress(open_notebook, folder):
    run = write_run(written(folder, "growing"), 5)
    page = open_inspector(folder, open_notebook, "follow.ipynb", "growing")
    assert "at step 5" in page.locator(".r1nb-values").inner_text()
    page.locator(".r1nb-follow input").click()
    threading.Timer(1, lambda: [append_step(run, step, []) for step in (6, 7)]).start()
    page.wait_for_function("() => document.querySelector('.r1nb-values').innerText.includes('at step 7')")


@pytest.mark.parametrize("where", ["inspector", "table", "report"])
def test_completions_are_never_markup(open_notebook, browser, page, folder, where):
    run = write_run(written(folder, f"hostile-{where}"), 3, texts=(IDEAL, *HOSTILE), group=14)
    if where == "inspector":
        open_inspector(folder, open_notebook, "hostile.ipynb", "hostile-inspector")
    elif where == "table":
        save_notebook(
            folder, "table.ipynb", "from r1nb.runs.run import Run; from r1nb.views.tables import *",
            f"completion_table(Run({str(run.folder)!r}), [1], each=14)",
        )  # fmt: skip
        open_notebook("table.ipynb")
        run_all(page)
    else:
        page.goto(f"file://{write_report(run)}")
    page.wait_for_timeout(1000)
    box = page.locator("body" if where == "report" else ".jp-Notebook")
    for text in ("<script>window.hacked = 1</script>", "␛[31mred␛[0m", "[U+202E]<answer>42", "onerror="):
        assert text in box.inner_text()
    for mouse in box.get_by_text("</td></table>").all():
        if mouse.is_visible():
            mouse.hover()
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img[src='x'], b[onmouseover]").count() == 0
    assert page.locator("a[href^='javascript'], .MathJax").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_needs_no_network(browser, folder, theme):
    """It is opened from a file, and requests no other address."""
    path = write_report(write_run(written(folder, f"report-{theme}"), 64))
    context = browser.new_context(color_scheme=theme, viewport={"width": 1150, "height": 900})
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(f"file://{path}")
    assert page.locator("img").evaluate("image => image.naturalWidth") > 1000
    assert [url for url in asked if not re.match("file:|data:", url)] == []
    assert wrong == []
    context.close()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_fits_the_screen_and_the_paper(browser, folder, width, theme):
    """Only wide tables and the picture scroll sideways, and the texts of headers keep their distance."""
    run = write_run(written(folder, f"fits-{width}-{theme}"), 64, texts=(IDEAL, "x" * 600, "long " * 200))
    for moment, right in {"before": False, "prefilled": False, "after": True}.items():
        answers = [
            Graded(f"What is {i}? {'y' * 300}", "24", f"{i} " + "z" * 900, (1,), False, right, right, right,
                   {"correctness_reward_func": 1.0}) for i in range(8)
        ]  # fmt: skip
        run.write_evaluation(moment, {"test": answers, "another_split_with_a_long_name": answers})
        run.write_samples(moment, "test", [answers])
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(f"file://{write_report(run)}")
    assert page.locator("article").count() == 5
    assert page.locator(".lead").bounding_box()["y"] < 200
    assert page.evaluate("document.documentElement.scrollWidth") == width
    gaps = page.evaluate(GAPS)
    assert len(gaps) > 20
    assert min(gaps) > 6
    picture = page.locator("img").evaluate("image => getComputedStyle(image).filter")
    assert (picture != "none") == (theme == "dark")  # a white picture would glare
    page.set_viewport_size({"width": 718, "height": 1000})  # A4
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    assert min(page.evaluate(GAPS)) > 6
    assert page.locator("img").evaluate("image => getComputedStyle(image).filter") == "none"
    context.close()


def test_the_playground_of_notebook_02_reacts_to_typing(open_notebook, shots):
    page = open_notebook("02_rewards.ipynb")
    run_all(page)
    playground = page.locator(".r1nb-playground").first
    text = playground.locator("textarea")
    text.fill("Sure! " + IDEAL)
    playground.get_by_text("text before the two blocks").first.wait_for()
    shots(page, ".r1nb-playground", "playground")
