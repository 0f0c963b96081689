"""Execute the training notebook without a browser: `make train`.

    python -m r1nb.execute [RECIPE]

Shows progress from the run folder, and ends with accuracy before and after and where things are.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from r1nb.errors import UserError, run_main
from r1nb.paths import NOTEBOOKS, runs_folder
from r1nb.runs.run import Run
from r1nb.views.console import show_result

NOTEBOOK = "03_train_grpo.ipynb"


class Execution:
    """A notebook running in a thread of its own; `section` is the heading that it has reached."""

    def __init__(self, notebook: Path, environment: dict[str, str]):
        self.environment = environment
        self.notebook = nbformat.read(notebook, as_version=4)
        for cell in self.notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None  # those of an earlier run
        self.section, self.error = "starting the kernel", None
        self.client = NotebookClient(
            self.notebook,
            timeout=None,
            kernel_name="python3",
            store_widget_state=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
            on_cell_start=self._on_cell_start,
        )
        self.thread = threading.Thread(target=self._execute, daemon=True)
        self.thread.start()

    def interrupt(self) -> None:
        """What Interrupt does in Jupyter: the notebook ends when the step under way is saved."""
        process = getattr(self.client.km.provisioner, "process", None) if self.client.km else None
        if process is None:
            raise KeyboardInterrupt  # there is no kernel yet
        process.send_signal(signal.SIGINT)

    def _execute(self) -> None:
        try:
            self.client.execute(env=self.environment)
        except Exception as error:  # handed to the main thread
            self.error = error

    def _on_cell_start(self, cell, cell_index) -> None:
        for earlier in reversed(self.notebook.cells[: cell_index + 1]):
            heading = re.search(r"^#+ (.+)", earlier.source, re.MULTILINE)
            if earlier.cell_type == "markdown" and heading:
                self.section = heading.group(1)
                return

    def run_name(self) -> str | None:
        """The run that the notebook has announced, if it has come so far."""
        for cell in self.notebook.cells:
            for output in cell.get("outputs", []):
                if found := re.search(r"^Run folder: (?:.*/)?(.+)$", output.get("text", ""), re.MULTILINE):
                    return found.group(1)
        return None


def execute(recipe, console: Console, environment: dict[str, str]) -> Run:
    """Execute notebook 03 on a recipe; returns its run, with the executed notebook inside."""
    execution = Execution(NOTEBOOKS / NOTEBOOK, environment)
    steps = recipe.grpo["max_steps"]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"),
               TimeElapsedColumn())  # fmt: skip
    run = None
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(execution.section, total=steps, figures="")
        while execution.thread.is_alive():
            try:
                time.sleep(0.5)
                if run is None and (name := execution.run_name()):
                    run = Run(runs_folder(recipe.output.runs_dir) / name)
                step, figures = run.progress() if run else (0, "")
                progress.update(task, description=execution.section, completed=step, figures=figures)
            except KeyboardInterrupt:
                execution.interrupt()
    if run is not None:
        nbformat.write(execution.notebook, run.folder / NOTEBOOK)
    if execution.error is not None:
        raise UserError(_sentence(execution.error))
    if run is None:
        raise UserError(f"{NOTEBOOK} ended without a run: does its text still say 'Run folder:'?")
    return run


def _sentence(error: Exception) -> str:
    if not isinstance(error, CellExecutionError):
        return f"The notebook could not be executed (is r1nb[notebook] installed?): {error}"
    if error.ename == "UserError":
        return error.evalue
    if error.ename == "KeyboardInterrupt":
        return "Interrupted before anything was trained, or after: run it again to go on."
    return f"The notebook stopped with {error.ename}: {error.evalue}"


def main(name: str = "tiny-cpu") -> None:
    from r1nb.recipes.recipe import load_recipe

    console = Console()
    os.environ["R1NB_SET"] = f"recipe={shlex.quote(name)} {os.environ.get('R1NB_SET', '')}"
    planned = subprocess.run([sys.executable, "-m", "r1nb.machine.plan", name], check=False)
    if planned.returncode:
        sys.exit(planned.returncode)
    environment = dict(os.environ)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the card is the notebook's, all of it
    recipe = load_recipe()
    run = execute(recipe, console, environment)
    show_result(run, notebook=NOTEBOOK)


if __name__ == "__main__":
    run_main(main)
