"""What a finished run shows in a terminal: accuracy, advice, and where things are."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from r1nb.evaluation import STAGES
from r1nb.rewards import short_name
from r1nb.runs import Run
from r1nb.tables import rate_cell, score_cell


def show_result(run: Run, **more: str) -> None:
    """Print a table for each test split, what the watchdog said, and where the run's files are.

    `more` are files beside adapter and report, by what they are: notebook="03_train_grpo.ipynb".
    """
    console = Console()
    for table in _tables(run):
        console.print(table)
    for line in run.advice():
        console.print(f"Step {line['step']}: {line['sentence']}", markup=False)
    here = Path.cwd()
    trained = run.trained.name
    for what, name in {"run folder": "", trained: trained, "report": "report.html", **more}.items():
        path = run.folder / name
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        console.print(f"{what + ':':<12}{shown}", soft_wrap=True)


def _tables(run: Run) -> list[Table]:
    """Accuracy and rewards before and after, a table for each test split."""
    tables = []
    for split, stages in run.evaluation().items():
        title = f"{split}: {stages['before']['n']} problems, greedy; rates with 95 % intervals"
        table = Table(
            "",
            title=title,
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
            title_justify="left",
            title_style="bold",
        )
        for stage in STAGES:
            table.add_column(stage, justify="right", no_wrap=True)
        ordered = [stages[stage] for stage in STAGES]
        for rate in ("strict", "lenient", "format"):
            table.add_row(rate, *(rate_cell(summary, rate) for summary in ordered))
        for name in run.weights():
            table.add_row(short_name(name), *(score_cell(summary["rewards"][name]) for summary in ordered))
        tables.append(table)
    return tables
