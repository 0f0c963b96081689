"""The live panel in a browser: it answers while the cell trains, and leaves a picture."""

from test_lab import save_notebook

RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"  # does not wait


def open_training(folder, open_notebook, name: str, runs: str):
    save_notebook(
        folder, name,
        "from r1nb.recipes.loading import load_recipe; from r1nb.train import train\n"
        "recipe = load_recipe('tiny-five-rewards', max_steps=200, per_device_train_batch_size=16,\n"
        "    test_problems=8, validation_problems=8, eval_every=8, torch_threads=1,\n"
        f"    runs_dir={str(folder / runs)!r})\n"
        "run, proof = train(recipe)",
        "print('the next cell')",
    )  # fmt: skip
    page = open_notebook(name)
    page.evaluate(RUN_ALL)
    return page


def test_the_panel_is_live_while_the_cell_trains(open_notebook, folder, shots):
    page = open_training(folder, open_notebook, "live.ipynb", "live")
    panel = page.locator(".r1nb-inspector")
    panel.wait_for(state="visible", timeout=300_000)
    page.screenshot(path="/tmp/live0.png")
    page.wait_for_function(
        "() => /step ([3-9]|1\\d) of 40/.test(document.querySelector('.r1nb-status').innerText)"
    )
    page.screenshot(path="/tmp/live1.png")
    handle = panel.locator(".r1nb-step .noUi-handle")
    handle.focus()
    handle.press("Home")
    page.wait_for_function("() => document.querySelector('.r1nb-values').innerText.includes('at step 0')")
    page.screenshot(path="/tmp/live2.png")
    panel.locator(".r1nb-stop").click()
    page.wait_for_function(
        "() => document.querySelector('.r1nb-status').innerText.includes('stopping after this step')",
        timeout=2_000,
    )
    page.get_by_text("run again to resume").wait_for(timeout=60_000)
    page.screenshot(path="/tmp/live3.png")
    assert panel.count() == 0
    assert page.locator(".jp-OutputArea img").count() == 1
