"""A notebook widget that shows runs. It reads only run folders, needs no model, and can follow a run that
another process is training."""

import contextlib
from bisect import bisect_right
from functools import partial

import ipywidgets as widgets

from r1nb.errors import UserError, first_line
from r1nb.paths import runs_folder
from r1nb.recipes.loading import default_runs_dir
from r1nb.rewards.registry import short_name
from r1nb.runs.run import Run
from r1nb.text.prompts import LAYOUTS
from r1nb.views.html import LEGEND, color_of, colored, escape
from r1nb.views.plots import PANELS, png, training_curves
from r1nb.views.progress import describe, progress
from r1nb.views.tables import CUT_OFF, answers_table, differences_table, number, table_of

PROBLEMS = 10  # validation problems shown


class Inspector(widgets.VBox):
    """A widget to choose runs, move through their steps, and read curves and completions.

    `runs_dir` is the folder of runs; None means the folder that recipes write to. `shown` holds the chosen
    runs. Raises UserError if there is no run.
    """

    def __init__(self, runs_dir: str | None = None):
        self.runs_dir, self.runs, self.shown = runs_dir or default_runs_dir(), {}, []
        self.chosen = widgets.SelectMultiple(description="runs", rows=5, layout={"flex": "1 1 0"})
        self.step = widgets.IntSlider(description="step", min=0, max=1, value=1, continuous_update=False)
        self.smoothing = widgets.FloatSlider(
            description="smoothing", min=0, max=0.95, step=0.05, continuous_update=False
        )
        self.search = widgets.Text(description="search", placeholder="text in a completion")
        self.clock = widgets.Play(max=10**6, interval=2000, show_repeat=False)
        self.curves = widgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self.values, self.completions, self.answers, self.differences = (widgets.HTML() for _ in range(4))
        self.step.layout.width = "95%"
        for name in ("step", "values", "completions", "answers", "differences"):
            getattr(self, name).add_class(f"r1nb-{name}")  # so that tests and styles can find them
        pages = [widgets.VBox([self.search, self.completions]), self.answers, self.differences]
        tabs = widgets.Tab(pages, titles=("Completions", "Validation answers", "Recipes"))
        follow = widgets.HBox([widgets.Label("follow a run in progress"), self.clock])
        controls = widgets.VBox([self.smoothing, follow])
        super().__init__([widgets.HBox([self.chosen, controls]), self.curves, self.step, self.values, tabs])
        self.add_class("r1nb-inspector")
        for control, draw in ((self.chosen, self._on_runs), (self.step, self._on_step),
                              (self.smoothing, self._draw_curves), (self.search, self._list_completions),
                              (self.clock, self._on_tick)):  # fmt: skip
            control.observe(partial(self._try_to, draw), names="value")
        self._find_runs()

    def _find_runs(self) -> None:
        found = {run.name: run for run in Run.all(self.runs_dir)}
        if not found:
            where = runs_folder(self.runs_dir).name
            raise UserError(f"There is no run in {where!r} yet: run notebook 03 or `make train` first.")
        if {name: run.made for name, run in found.items()} != {name: r.made for name, r in self.runs.items()}:
            self.runs = found
            self._list_runs()

    def _list_runs(self) -> None:
        """List the runs, each described in one line, and draw those that were chosen, or else the newest."""
        names = self.chosen.value or [run.name for run in self.shown]
        kept = tuple(name for name in names if name in self.runs)
        self.chosen.options = [(describe(run), name) for name, run in self.runs.items()]
        self.chosen.value = kept or tuple(self.runs)[:1]  # new options clear it, so this calls _on_runs

    def _try_to(self, draw, _change) -> None:
        """Draw; an error is shown in the widget, in which other runs can still be chosen."""
        try:
            draw()
        except Exception as error:  # of a damaged run
            names = ", ".join(run.name for run in self.shown)
            why = f"{type(error).__name__}: {first_line(error)}"
            self.values.value = escape(f"{names} cannot be shown ({why}): choose other runs.")

    def _on_runs(self) -> None:
        runs = [self.runs[name] for name in self.chosen.value]
        if not runs:  # keep showing the last ones
            return
        self.shown = runs
        self.drawn = [(len(run.history()), describe(run)) for run in runs]
        at_end = self.step.value == self.step.max
        self.step.max = max(1, *(progress(run)[0] for run in runs))
        self.answers.value = answers_table(runs[0], PROBLEMS).to_html()
        hint = "Choose several runs (Ctrl or Shift and click) to see how their recipes differ."
        self.differences.value = differences_table(runs).to_html() if len(runs) > 1 else hint
        if at_end and self.step.value != self.step.max:
            self.step.value = self.step.max  # this calls _on_step
        else:
            self._on_step()

    def _on_step(self) -> None:
        self._draw_curves()
        self._read_values()
        self._list_completions()

    def _on_tick(self) -> None:
        """Draw again if a new run has begun, or a chosen run has got new steps or results."""
        with contextlib.suppress(UserError):  # all runs have been deleted
            self._find_runs()
        if self.drawn != [(len(run.history()), describe(run)) for run in self.shown]:
            self._list_runs()

    def _draw_curves(self) -> None:
        figure = training_curves(*self.shown, smoothing=self.smoothing.value, cursor=self.step.value)
        self.curves.value = png(figure)

    def _read_values(self) -> None:
        runs = self.shown
        keys = {key: title for key, (title, _) in PANELS.items()}
        keys |= {f"rewards/{name}/mean": short_name(name) for run in runs for name in run.reward_weights}
        keys = {key: title for key, title in keys.items() if any(run.series(key)[0] for run in runs)}
        rows = [
            [run.name.replace("-", "\u2011"), *(_value(run, key, self.step.value) for key in keys)]
            for run in runs
        ]
        self.values.value = table_of(rows, [f"at step {self.step.value}", *keys.values()]).to_html()

    def _list_completions(self) -> None:
        run, wanted = self.shown[0], self.search.value
        step = run.logged(self.step.value) or self.step.value  # the last step with logged completions
        try:
            log = run.completions(step)
        except UserError as error:  # none yet, or the file is being written
            self.completions.value = escape(error)
            return
        found = log[log["completion"].str.contains(wanted, case=False, regex=False)]
        ranked = found.sort_values("advantage", ascending=False).to_dict("records")
        cards = [_card(line, run) for line in ranked]
        note = f"{run.name}, step {step}: {len(found)} of {len(log)} completions, best first; {LEGEND}"
        self.completions.value = f"<p>{escape(note)}</p>{''.join(cards)}"


def _value(run: Run, key: str, step: int) -> str:
    """The value of a series at a step, or the last value before it, as text; "" if there is none."""
    steps, values = run.series(key)
    at = bisect_right(steps, step)
    if not at:
        return ""
    share = PANELS.get(key, ("", False))[1]
    return f"{values[at - 1]:.0%}" if share else f"{values[at - 1]:.3g}"


def _card(line: dict, run: Run) -> str:
    scores = ", ".join(f"{short_name(name)} {number(line[name], 'g')}" for name in run.reward_weights)
    advantage = number(line["advantage"], "+.2f")
    head = f"advantage {advantage}, reward {line['total']:g} ({scores}), {line['tokens']} tokens"
    return (
        f'<div style="border-left:4px solid {color_of(line["advantage"])};padding-left:8px;margin:10px 0">'
        f"<b>{escape(head)}{CUT_OFF * line['cut']}</b>"
        f"<details><summary>gold {escape(line['answer'])}; the prompt</summary>"
        f'<div style="white-space:pre-wrap">{escape(line["prompt"])}</div></details>'
        f"{colored(line['completion'], LAYOUTS[run.recipe['data'].get('layout', 'reasoning')])}</div>"
    )
