"""A notebook widget that shows runs. It reads only run folders, needs no model, and can follow a run that
another process is training."""

import contextlib
import time
from bisect import bisect_right
from functools import partial

import ipywidgets as widgets

from r1nb.errors import UserError, first_line
from r1nb.paths import runs_folder
from r1nb.recipes.loading import default_runs_dir, recipe_of_run
from r1nb.rewards.registry import short_name
from r1nb.runs.activity import TRAINING, ask_to_stop, asked_to_stop, doing_now
from r1nb.runs.run import Run
from r1nb.views.group import FILTERS, groups_html, with_verdicts
from r1nb.views.html import LEGEND, TEXT, escape
from r1nb.views.plots import PANELS, png
from r1nb.views.progress import describe, planned_steps, progress
from r1nb.views.strip import strip
from r1nb.views.tables import compare_runs
from r1nb.widgets.moments import Moments

LATEST = "always the latest step"
# The trait that starts a clock; ipywidgets 7, which Colab ships, has another name for it.
PLAYING = "playing" if "playing" in widgets.Play.class_trait_names() else "_playing"
SHARE = 0.02  # of the time is the most that following a run takes, since it may train in this process


class Inspector(widgets.VBox):
    """A widget to choose runs, move through their steps, and read curves and completions.

    `runs_dir` is the folder of runs; None means the folder that recipes write to. With a `run`, it shows only
    that run. `shown` holds the chosen runs. With a `policy` to train, another page takes GRPO steps with the
    newest run's recipe, on the first question of the page Completions. Raises UserError if there is no run.
    """

    def __init__(self, runs_dir: str | None = None, run: Run | None = None, policy=None):
        self.runs_dir, self.only, self.runs, self.shown = runs_dir or default_runs_dir(), run, {}, []
        self._make_controls()
        chooser = [] if run else [self.chosen]
        head = widgets.HBox([self.status, self.stop], layout={"justify_content": "space-between"})
        curves = widgets.GridBox([self.curves, self.cursor], layout={"width": "100%"})
        filters = widgets.HBox([self.filter, self.search, self.smoothing], layout={"flex_flow": "row wrap"})
        self.follow.layout.display = "none" if run else ""  # a panel starts its clock
        steps = widgets.HBox([self.step, self.latest, self.follow, self.clock])
        samples = widgets.VBox([filters, self.completions])
        self.moments = Moments()
        pages = {"Completions": samples, "One question": self.moments, "Comparison": self.comparison}
        self.tabs = widgets.Tab(list(pages.values()))
        for number, title in enumerate(pages):
            self.tabs.set_title(number, title)  # ipywidgets 7, too
        self.one_step = None
        super().__init__([head, *chooser, curves, steps, self.values, self.tabs])
        self.add_class("r1nb-inspector")
        for control, draw in ((self.chosen, self._on_runs), (self.step, self._on_step),
                              (self.smoothing, self._draw_curves), (self.search, self._list_completions),
                              (self.filter, self._list_completions), (self.latest, self._on_latest),
                              (self.follow, self._on_follow), (self.clock, self._on_tick)):  # fmt: skip
            control.observe(partial(self._try_to, draw), names="value")
        self._find_runs()
        if policy:
            self._add_one_step(policy)

    def _add_one_step(self, policy) -> None:
        from r1nb.widgets.one_step import OneStep  # imports what trains

        self.one_step = OneStep(policy, recipe_of_run(self.shown[0]), {"question": "", "answer": ""})
        self.tabs.children += (self.one_step,)
        self.tabs.set_title(len(self.tabs.children) - 1, "One GRPO step")
        self._list_completions()

    def _make_controls(self) -> None:
        self.status, self.values, self.completions, self.comparison, self.cursor = (
            widgets.HTML() for _ in range(5)
        )
        self.stop = widgets.Button(description="Stop", tooltip="Finish this step, save, and stop")
        self.stop.on_click(self._on_stop)
        self.chosen = widgets.SelectMultiple(description="runs", rows=3, layout={"width": "95%"})
        self.step = widgets.IntSlider(
            description="step", min=0, max=1, value=1, continuous_update=True, layout={"width": "60%"}
        )
        self.latest = widgets.Checkbox(description=LATEST, value=True, indent=False)
        self.smoothing = widgets.FloatSlider(
            description="smoothing", min=0, max=0.95, step=0.05, continuous_update=False
        )
        self.filter = widgets.Dropdown(description="show", options=list(FILTERS))
        self.search = widgets.Text(description="with text", placeholder="text in a completion")
        self.follow = widgets.Checkbox(description="follow a run that trains", value=False, indent=False)
        self.clock = widgets.Play(max=10**6, interval=2000, layout={"display": "none"})
        same_place = {"grid_area": "1 / 1 / 2 / 2", "width": "100%", "margin": "0"}
        self.curves = widgets.Image(format="png", layout=same_place)
        self.cursor.layout = same_place
        height = "max(220px, calc(100vh - 580px))"  # so that all of it fits on one screen
        self.completions.layout = {"max_height": height, "overflow": "auto", "width": "100%"}
        for name in ("status", "stop", "step", "values", "completions", "comparison", "cursor", "latest",
                     "follow"):  # fmt: skip
            getattr(self, name).add_class(f"r1nb-{name}")  # so that tests and styles can find them

    def _find_runs(self) -> None:
        found = {run.name: run for run in ([self.only] if self.only else Run.all(self.runs_dir))}
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
        if runs != self.shown:
            self.shown = runs
            hint = "Choose several runs (Ctrl or Shift and click) to compare their recipes and accuracy."
            tables = compare_runs(runs) if len(runs) > 1 else []
            self.comparison.value = "<br>".join(table.to_html() for table in tables) or hint
        self._on_growth()

    def _state(self) -> list:
        return [(len(run.history()), describe(run)) for run in self.shown]

    def _on_growth(self) -> None:
        """Draw what depends on the length of the histories; the chosen step stays, or follows the latest."""
        begin = time.thread_time()
        self.drawn = self._state()
        trained = max(progress(run)[0] for run in self.shown)
        self.step.max = max(1, trained)
        self._draw_curves()
        if self.latest.value and self.step.value != self.step.max:
            self.step.value = self.step.max  # this calls _on_step
        else:
            self._on_step()
        self.moments.show(self.shown[0])
        self._say()
        spent = time.thread_time() - begin if trained else 0.0  # the first step is drawn at once
        self.next_drawing = time.perf_counter() + spent / SHARE

    def _say(self) -> None:
        said = [f"<b>{escape(run.label)}</b>: {escape(doing(run))}" for run in self.shown]
        self.status.value = "<br>".join(said)
        running = [run for run in self.shown if _can_stop(run)]
        self.stop.layout.display = "" if running else "none"
        self.stop.disabled = bool(running) and all(map(asked_to_stop, running))

    def _on_stop(self, _button) -> None:
        for run in filter(_can_stop, self.shown):
            ask_to_stop(run)
        self._say()

    def _on_latest(self) -> None:
        if self.latest.value:
            self.step.value = self.step.max

    def _on_follow(self) -> None:
        setattr(self.clock, PLAYING, self.follow.value)

    def _on_step(self) -> None:
        self.latest.value = self.step.value == self.step.max
        self._move_cursor()
        self._read_values()
        self._list_completions()

    def _on_tick(self) -> None:
        """Draw again if a new run has begun, or a chosen run has got new steps or results."""
        with contextlib.suppress(UserError):  # all runs have been deleted
            self._find_runs()
        due = time.perf_counter() > self.next_drawing or not any(map(doing_now, self.shown))
        if due and self.drawn != (state := self._state()):
            self._list_runs()
            if self.drawn != state:  # no new label, so nothing was drawn yet
                self._on_growth()
        else:
            self._say()

    def _draw_curves(self) -> None:
        figure, self.last = strip(*self.shown, smoothing=self.smoothing.value)
        self.curves.value = png(figure)
        self.places = [axes.get_position() for axes in figure.axes]  # as the layout engine left them
        self.shape = figure.get_size_inches()
        self._move_cursor()

    def _move_cursor(self) -> None:
        """Draw a line over each panel at the step; the picture below stays as it is."""
        lines = []
        for place in self.places:
            left = place.x0 + place.width * min(self.step.value, self.last) / self.last
            lines.append(
                f'<div style="position:absolute;left:{left:.2%};top:{1 - place.y1:.2%};width:1px;'
                f'height:{place.height:.2%};background:rgb(128,128,128)"></div>'
            )
        box = f"position:relative;width:100%;aspect-ratio:{self.shape[0]}/{self.shape[1]}"
        self.cursor.value = f'<div style="{box}">{"".join(lines)}</div>'

    def _read_values(self) -> None:
        keys = {key: title.partition(",")[0].lower() for key, (title, _) in PANELS.items()}
        names = {name: short_name(name) for run in self.shown for name in run.reward_weights}
        keys |= {f"rewards/{name}/mean": short for name, short in names.items()}
        lines = []
        for run in self.shown:
            last = progress(run)[0]
            step = f"{last}, its last" if self.step.value > last else self.step.value
            found = {title: _value(run, key, self.step.value) for key, title in keys.items()}
            values = [f"{escape(title)} <b>{value}</b>" for title, value in found.items() if value]
            lines.append(f"{escape(run.name)} at step {step}: {' · '.join(values)}")
        self.values.value = f'<div style="{TEXT}">{"<br>".join(lines)}</div>'

    def _list_completions(self) -> None:
        run, wanted = self.shown[0], self.search.value
        step = run.logged(self.step.value)  # the last step with logged completions
        if step is None:
            self.completions.value = escape(f"{run.name} has no completions up to step {self.step.value}.")
            return
        try:
            log = with_verdicts(run.completions(step), run)
        except UserError as error:  # the file is being written
            self.completions.value = escape(error)
            return
        found = log[log["completion"].str.contains(wanted, case=False, regex=False)]
        kept = [FILTERS[self.filter.value](group) for _, group in found.groupby("question", sort=False)]
        worst = self.filter.value.startswith("worst")
        if worst:
            kept.sort(key=lambda group: group["advantage"].min())
        count, first = sum(map(len, kept)), "worst" if worst else "best"
        note = f"{run.name}, step {step}: {count} of {len(log)} completions, {first} first; {LEGEND}"
        note += "; rewards of weight 0 in brackets" * (0 in run.reward_weights.values())
        groups = "".join(groups_html(group, run) for group in kept)
        self.completions.value = f'<div style="{TEXT}"><p>{escape(note)}</p>{groups}</div>'
        if self.one_step and len(found):
            self.one_step.sampler.put(*found[["question", "answer"]].iloc[0])


def _can_stop(run: Run) -> bool:
    return bool(doing_now(run)) and progress(run)[0] < planned_steps(run)


def doing(run: Run) -> str:
    """What a run does now, or else how far it is."""
    step, said = progress(run)
    if asked_to_stop(run):
        return f"stopping after this step; {said}"
    now = doing_now(run)
    if now == TRAINING:
        return said
    return f"{now}; {said}" if now and step else now or said


def _value(run: Run, key: str, step: int) -> str:
    """The value of a series at a step, or the last value before it, as text; "" if there is none."""
    steps, values = run.series(key)
    at = bisect_right(steps, step)
    if not at:
        return ""
    share = PANELS.get(key, ("", False))[1]
    return f"{values[at - 1]:.0%}" if share else f"{values[at - 1]:.3g}"
