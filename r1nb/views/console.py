"""What a finished run shows in a terminal: accuracy, advice, and where things are."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from r1nb.runs.run import Run
from r1nb.views.tables import accuracy_table


def show_result(run: Run, **more: str) -> None:
    """Print a table for each test split, what the watchdog said, and where the run's files are.

    `more` are files beside adapter and report, by what they are: notebook="03_train_grpo.ipynb".
    """
    console = Console()
    for table in _tables(run):
        console.print(table)
    for line in run.alarms():
        console.print(f"Step {line['step']}: {line['sentence']}", markup=False)
    here = Path.cwd()
    trained = run.trained.name
    for what, name in {"run folder": "", trained: trained, "report": "report.html", **more}.items():
        path = run.folder / name
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        console.print(f"{what + ':':<12}{shown}", soft_wrap=True, markup=False)


def _tables(run: Run) -> list[Table]:
    """Accuracy and rewards before and after, a table for each test split."""
    tables, frame = [], accuracy_table(run).data
    for split in dict.fromkeys(split for split, _ in frame.columns[1:]):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.title = f"[bold]{split}, greedy; rates with 95 % intervals"
        table.title_justify = "left"
        table.add_column(no_wrap=True)
        for stage in frame[split]:
            table.add_column(stage, justify="right", no_wrap=True)
        for name, *cells in zip(frame.iloc[:, 0], *frame[split].to_numpy().T, strict=True):
            table.add_row(name, *cells)
        tables.append(table)
    return tables
