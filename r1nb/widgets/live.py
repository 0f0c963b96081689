"""The live view of a run: in a notebook the panel, elsewhere lines of progress."""

from math import inf

from IPython import get_ipython

from r1nb.runs.run import Run
from r1nb.training.callbacks import Observer
from r1nb.views.plots import png, training_curves
from r1nb.views.progress import progress


class LiveView(Observer):
    """Show the run while it trains, from before its first step; the curves stay visible afterwards.

    The picture is also saved as the run's curves.png. Outside a notebook, about LINES lines of progress are
    printed instead.
    """

    SHARE = 0.02
    LINES = 50

    def __init__(self, run: Run):
        super().__init__(run)
        self.panel, self.ended, self.printed = None, False, -inf

    def on_init_end(self, args, state, control, **kwargs):  # before the first validation
        if hasattr(get_ipython(), "kernel"):
            self._observe(args, state, control)

    def on_train_end(self, args, state, control, **kwargs):
        self.ended = True
        super().on_train_end(args, state, control, **kwargs)

    def observe(self, run: Run, args, state, control) -> None:
        if hasattr(get_ipython(), "kernel"):
            from r1nb.widgets.panel import Panel  # needs ipywidgets, which only notebooks install

            self.panel = self.panel or Panel(run)
            self.panel.close() if self.ended else self.panel.draw(run)
        else:
            self._print_line(run, state)
        if self.ended or self.panel is None:
            (run.folder / "curves.png").write_bytes(png(training_curves(run)))

    def _print_line(self, run: Run, state) -> None:
        step, figures = progress(run)
        due = min(state.max_steps, self.printed + state.max_steps / self.LINES)
        if step > self.printed and step >= due:
            print(figures, flush=True)
            self.printed = step
