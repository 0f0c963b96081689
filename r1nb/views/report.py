"""A run as one HTML file that opens by double click, without network and without scripts."""

import base64
from datetime import datetime
from pathlib import Path

from r1nb.runs.evaluations import MOMENTS
from r1nb.views.html import visible
from r1nb.views.plots import png, training_curves
from r1nb.views.tables import (
    accuracy_table,
    answers_table,
    changes_table,
    completion_table,
    gain_table,
    kinds_table,
    pass_table,
)

PROBLEMS, EACH = 8, 4  # held-out problems, and completions of a step, that are shown


def write_report(run) -> Path:
    """Write report.html into the run's folder, of what there is so far; returns its path."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("r1nb", "views"), autoescape=True, trim_blocks=True)
    environment.filters["visible"] = visible
    figure = training_curves(run)
    figure.set_dpi(150)
    page = environment.get_template("report.html").render(
        name=run.name,
        about=run.recipe["about"],
        headline=run.progress()[1].capitalize(),
        begun=f"{datetime.fromtimestamp(run.made):%Y-%m-%d %H:%M}",
        alarms=run.alarms(),
        curves=base64.b64encode(png(figure)).decode(),
        tables=list(_tables(run)),
        recipe=(run.folder / "recipe.yaml").read_text(),
        environment=(run.folder / "environment.json").read_text(),
    )
    path = run.folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _tables(run):
    """(title, explanation, table) of what the run holds so far."""
    if run.evaluation():
        said = (
            "Greedy answers to test problems, with 95 % Wilson intervals. Strict: the answer block is right; "
            "lenient: the last number anywhere is; prefilled: the reply was prefilled with <reasoning>."
        )
        yield "Accuracy before and after", said, accuracy_table(run)
    if all(run.graded(moment) for moment in MOMENTS):
        split = next(iter(run.evaluation()))
        said = "Points of strict accuracy, from before to after, with 95 % bootstrap intervals; they add up."
        yield "Where the gain comes from", said, gain_table(run)
        said = "pass@k: at least one of k samples is right; maj@k: the commonest answer of k is. Lenient."
        yield "Several samples of a problem", said, pass_table(run)
        yield f"Accuracy by kind of problem: {split}", "Strict, greedy.", kinds_table(run, split)
        said = "From the untrained policy, its reply prefilled with <reasoning>, to the trained one."
        yield "The most telling changes", said, changes_table(run, split)
    if run.validated():
        said = f"The first {PROBLEMS} validation problems; ✓ where the answer block is right."
        yield "The same validation problems, before and after", said, answers_table(run, PROBLEMS)
    last = run.progress()[0]
    if steps := {run.logged(step) or run.logged(last) for step in (1, last // 2, last)} - {None}:
        said = "Of some steps, the group whose rewards differ most."
        yield "Sampled while training", said, completion_table(run, sorted(steps), EACH)
