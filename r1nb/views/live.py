"""The live picture: the curves and the latest group of a run, redrawn in place while it trains."""

from math import inf

from IPython import get_ipython
from IPython.display import HTML, Image, display

from r1nb.runs.run import Run
from r1nb.training.callbacks import Observer
from r1nb.views.plots import png, training_curves
from r1nb.views.progress import progress
from r1nb.views.tables import completion_table


class LiveView(Observer):
    """Redraw the run's curves and its latest group in place; both stay visible after the training.

    The picture is also saved as the run's curves.png. Outside a notebook, about LINES lines of progress are
    printed instead.
    """

    SHARE = 0.02
    LINES = 50

    def __init__(self, run: Run):
        super().__init__(run)
        self.handles, self.printed = [], -inf

    def observe(self, run: Run, args, state, control) -> None:
        picture = png(training_curves(run))
        (run.folder / "curves.png").write_bytes(picture)
        if not hasattr(get_ipython(), "kernel"):
            step, figures = progress(run)
            due = min(state.max_steps, self.printed + state.max_steps / self.LINES)
            if step > self.printed and step >= due:
                print(figures, flush=True)
                self.printed = step
            return
        shown = [Image(picture)]
        if step := run.logged(state.global_step):
            table = completion_table(run, [step], each=args.num_generations)
            shown.append(HTML(f'<div style="max-height:420px;overflow:auto">{table.to_html()}</div>'))
        for handle, thing in zip(self.handles, shown, strict=False):
            handle.update(thing)
        self.handles += [display(thing, display_id=True) for thing in shown[len(self.handles) :]]
