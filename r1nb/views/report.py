"""Write the report of a run: one HTML file that opens by double click, without network and scripts."""

import base64
import json
import tempfile
from datetime import datetime
from pathlib import Path

from r1nb.errors import UserError
from r1nb.runs.evaluations import MOMENTS
from r1nb.views import tables
from r1nb.views.html import visible
from r1nb.views.plots import png, training_curves
from r1nb.views.progress import progress


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
    page = environment.get_template("report.html").render(
        run=run,
        said=said,
        tables=tables,
        begun=f"{datetime.fromtimestamp(run.made):%Y-%m-%d %H:%M}",
        curves=base64.b64encode(png(figure)).decode(),
        evaluated=all(run.graded(moment) for moment in MOMENTS),
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
            print(f"{run.label} cannot be written to ({why}), so its report is {path}.")
        return path
    raise UserError(f"No report could be written ({why}): make room on the disk.")
