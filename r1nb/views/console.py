"""What a terminal shows of a run: a line while it trains; accuracy, alarms and its files at the end."""

import contextlib
from pathlib import Path

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar

from r1nb.runs.run import Run
from r1nb.views.tables import accuracy_table


@contextlib.contextmanager
def training_line(run: Run):
    """In a terminal, show a bar and the latest figures below what is printed, until the block ends.

    A log file gets nothing of it.
    """
    console, run = Console(), Run(run.folder)  # read anew: this is another thread
    if not console.is_terminal:
        yield
        return

    def line() -> Columns:
        step, figures = run.progress()
        return Columns([ProgressBar(run.recipe["grpo"]["max_steps"], step, width=30), figures])

    with Live(get_renderable=line, console=console, refresh_per_second=2, transient=True):
        yield


def show_result(run: Run, **more: str) -> None:
    """Print a table for each test split, what the watchdog said, and where the run's files are.

    `more` are files beside adapter and report, by what they are: notebook="03_train_grpo.ipynb".
    """
    rates = accuracy_table(run).data
    for split in dict.fromkeys(split for split, _ in rates.columns[1:]):
        print(f"{split}, greedy; rates with 95 % intervals")
        print(rates[split].set_axis(rates.iloc[:, 0].to_list()).to_string(), end="\n\n")
    for line in run.alarms():
        print(f"Step {line['step']}: {line['sentence']}")
    here = Path.cwd()
    trained = run.trained.name
    for what, name in {"run folder": "", trained: trained, "report": "report.html", **more}.items():
        path = run.folder / name
        print(f"{what + ':':<12}{path.relative_to(here) if path.is_relative_to(here) else path}")
