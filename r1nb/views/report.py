"""Write the report of a run: one HTML file that opens by double click, without network and scripts."""

import base64
import json
import tempfile
from datetime import datetime
from pathlib import Path

from r1nb.errors import UserError
from r1nb.evaluation.comparison import Comparison, compare, telling_changes
from r1nb.paths import shown
from r1nb.runs.evaluations import MOMENTS
from r1nb.views import tables
from r1nb.views.html import visible
from r1nb.views.plots import png, training_curves
from r1nb.views.progress import progress

CHANGES = 5  # answers before and after that are shown in full


def write_report(run) -> Path:
    """Write report.html into the run folder, with the results so far; return its path.

    If nothing can be written there, the report goes to the current folder, or else to a temporary one.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("r1nb", "views"), autoescape=True, trim_blocks=True)
    environment.filters["visible"] = visible
    figure = training_curves(run)
    figure.set_dpi(150)
    last, said = progress(run)
    graded = {moment: run.graded(moment) for moment in MOMENTS}
    before, after = graded["before"], graded["after"]
    compared = {split: compare(before[split], after[split]) for split in before if split in after}
    compared = {split: comparison for split, comparison in compared.items() if comparison.n}
    split = next(iter(run.evaluation()), "")
    lead, meaning = headline(run, split, compared.get(split))
    page = environment.get_template("report.html").render(
        run=run,
        said=said,
        lead=lead,
        meaning=meaning,
        tables=tables,
        begun=f"{datetime.fromtimestamp(run.made):%Y-%m-%d %H:%M}",
        curves=base64.b64encode(png(figure)).decode(),
        compared=compared,
        split=split,
        changes=telling_changes(before[split], after[split], CHANGES) if split in compared else [],
        evaluated=all(graded.values()),
        steps=sorted({run.logged(step) or run.logged(last) for step in (1, last // 2, last)} - {None}),
        recipe=(run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        environment=json.dumps(run.environment, indent=1),
    )
    name = f"{run.name}-report.html"
    for path in (run.folder / "report.html", Path.cwd() / name, Path(tempfile.mkdtemp()) / name):
        try:
            path.write_text(page, encoding="utf-8")
        except OSError as error:
            why = error.strerror
            continue
        if path.parent != run.folder:
            print(f"{run.label} cannot be written to ({why}), so its report is {shown(path)}.")
        return path
    raise UserError(f"No report could be written ({why}): make room on the disk.")


def headline(run, split: str, comparison: Comparison | None) -> tuple[str, str]:
    """The newest accuracy in one line, and what it means.

    `comparison` is that of the answers to a test split before and after training, if there are both.
    """
    moments = run.evaluation().get(split, {})
    rates = {moment: moments[moment] for moment in ("before", "after") if moment in moments}
    rates = {moment: summary for moment, summary in rates.items() if summary["strict"] is not None}
    found = [f"{tables.rate_cell(summary, 'strict')} {moment} training" for moment, summary in rates.items()]
    meaning = (
        f"Strict accuracy (the answer block is right) of greedy answers to the problems of {split}, "
        f"with 95 % intervals: {' and '.join(found)}."
    )
    if comparison:
        first, second = comparison.both + comparison.first_only, comparison.both + comparison.second_only
        lead = f"{first / comparison.n:.1%} → {second / comparison.n:.1%} of {comparison.n} problems right"
        return lead, f"{meaning} {comparison.change}"
    steps, validated = run.series("validation/strict")
    if validated and "after" not in rates:
        n = int(run.series("validation/n")[1][-1])
        lead = f"{validated[-1]:.1%} of {n} validation problems right after step {steps[-1]}"
        return lead, f"There is no accuracy on test problems after training yet. {meaning if found else ''}"
    if not found:
        return "No accuracy yet", "No test or validation problem has been answered and judged."
    moment, summary = list(rates.items())[-1]
    return f"{summary['strict']:.1%} of {summary['n']} problems right {moment} training", meaning
