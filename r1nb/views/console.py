"""Print the result of a finished run in a terminal: accuracy, alarms, and the paths of its files."""

from r1nb.paths import shown
from r1nb.runs.run import Run
from r1nb.views.tables import accuracy_table


def show_result(run: Run) -> None:
    """Print an accuracy table for each test split, the watchdog's alarms, and the paths of the files."""
    rates = accuracy_table(run).data
    for split in dict.fromkeys(split for split, _ in rates.columns[1:]):
        print(f"{split}, greedy; rates with 95 % intervals")
        print(rates[split].set_axis(rates.iloc[:, 0].to_list()).to_string(), end="\n\n")
    for line in run.alarms():
        print(f"Step {line['step']}: {line['sentence']}")
    trained = run.trained.name
    files = {"run folder": "", trained: trained, "report": "report.html", "serve it": "serve.md"}
    for what, name in files.items():
        print(f"{what + ':':<12}{shown(run.folder / name)}")
