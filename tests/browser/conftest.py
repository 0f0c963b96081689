"""Fixtures with a real JupyterLab and a real Chromium, without network and without the user's settings."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from r1nb.paths import NOTEBOOKS
from r1nb.recipes.loading import load_recipe

SHORT = (
    "max_steps=40 per_device_train_batch_size=16 test_problems=8 validation_problems=8 eval_every=8 "
    "torch_threads=1 runs_dir={} "
    f"rewards='{{{load_recipe('tiny-five-rewards').rewards}}}'"  # these teach something in few steps
)
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
READY = """() => {
    const app = window.jupyterapp, panel = app && app.shell.currentWidget;
    return panel && app.commands.hasCommand('notebook:run-all-cells') && panel.context
        && panel.context.isReady && panel.sessionContext.session && panel.sessionContext.session.kernel
        && panel.sessionContext.session.kernel.status === 'idle';
}"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return the folder that JupyterLab opens: copies of the notebooks, and runs/."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def lab(folder, tmp_path_factory):
    """Return the address of a JupyterLab whose kernels train a short recipe."""
    home = tmp_path_factory.mktemp("home")
    overrides = {
        "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
        "@jupyterlab/apputils-extension:notification": {
            "fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True,
        },
        "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    }  # fmt: skip
    (home / "config" / "labconfig").mkdir(parents=True)
    (home / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(overrides))
    names = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "MPLCONFIGDIR": "matplotlib", "HOME": "",
    }  # fmt: skip
    environment = os.environ | {name: str(home / part) for name, part in names.items()}
    environment["R1NB_SET"] = SHORT.format(folder / "runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (
        f"-m jupyterlab --no-browser --allow-root --ServerApp.ip=127.0.0.1 --ServerApp.port={port} "
        f"--ServerApp.port_retries=0 --ServerApp.root_dir={folder} --IdentityProvider.token= "
        "--LabApp.expose_app_in_browser=True --LabApp.news_url=None --LabApp.extension_manager=readonly "
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate"
    )
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command.split()], env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status", home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(url: str, log: Path) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url)
            return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise RuntimeError(log.read_text()[-2000:])


@pytest.fixture(scope="session")
def browser():
    assert CHROMIUM, "no chromium on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def shots(tmp_path_factory):
    """Return a function that takes screenshots in both themes; R1NB_SHOTS names a folder to keep them in."""
    folder = Path(os.environ.get("R1NB_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, selector: str, name: str) -> None:
        page.set_viewport_size({"width": 1300, "height": 2200})  # so that all of it is visible
        for theme in ("Dark", "Light"):
            page.evaluate(
                "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
                f"JupyterLab {theme}",
            )
            page.wait_for_function(
                "light => document.body.dataset.jpThemeLight === light", arg=str(theme == "Light").lower()
            )
            page.locator(selector).first.scroll_into_view_if_needed()
            page.locator(selector).first.screenshot(path=folder / f"{name}-{theme.lower()}.png")

    return take


@pytest.fixture
def open_notebook(page, lab):
    """Return a function that opens a notebook and waits until its kernel is idle."""

    def open_it(name: str):
        page.goto(f"{lab}/doc/tree/{name}?reset")
        page.wait_for_function(READY)
        return page

    return open_it
