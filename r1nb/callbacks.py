"""What GRPOTrainer calls while it trains: record the run, look at held-out problems, draw, warn.

Each callback adds up the seconds it takes, so that a run can say what looking at it cost.
"""

import time

from IPython import get_ipython
from IPython.display import Image, display
from transformers import TrainerCallback

from r1nb.evaluation import as_records, evaluate, summarize
from r1nb.plots import png, training_curves
from r1nb.runs import Run
from r1nb.watchdog import advise


class Recorder(TrainerCallback):
    """Write every line that the trainer logs into the run's history, as it comes."""

    def __init__(self, run: Run):
        self.run, self.seconds, self.start = run, 0.0, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        begin = time.perf_counter()
        if "reward" in logs:
            self.run.append({"step": state.global_step, "time": begin - self.start, **logs})
        self.seconds += time.perf_counter() - begin


class Watchdog(TrainerCallback):
    """Say what the figures call for, once each, and keep it in the history; stop at NaN."""

    def __init__(self, run: Run, recipe):
        self.run, self.recipe, self.seconds = run, recipe, 0.0

    def on_log(self, args, state, control, logs=None, **kwargs):
        begin = time.perf_counter()
        heard = {line["advice"] for line in self.run.advice()}
        for advice in advise(self.run.history(), self.recipe):
            if advice.kind not in heard:
                self.run.append({"step": advice.step, "advice": advice.kind, "sentence": advice.sentence})
                print(f"Step {advice.step}: {advice.sentence}")
            if advice.kind == "not_finite":
                control.should_training_stop = True
        self.seconds += time.perf_counter() - begin


class HeldOut(TrainerCallback):
    """Greedy strict, lenient and format rate on the validation slice, every eval_every steps."""

    def __init__(self, run: Run, policy, rows, recipe):
        self.run, self.policy, self.rows, self.recipe = run, policy, rows, recipe
        self.seconds = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._look(state)

    def on_step_end(self, args, state, control, **kwargs):
        last = state.global_step == state.max_steps
        if last or state.global_step % self.recipe.evaluation.eval_every == 0:
            self._look(state)

    def _look(self, state) -> None:
        begin = time.perf_counter()
        graded = evaluate(self.policy, self.rows, self.recipe)
        self.run.write_held_out(state.global_step, as_records(graded))
        summary = summarize(graded)
        rates = {f"held_out/{k}": summary[k] for k in ("strict", "lenient", "format", "tokens", "n")}
        self.run.append({"step": state.global_step, **rates})
        self.seconds += time.perf_counter() - begin


class LiveCurves(TrainerCallback):
    """Redraw the run's curves in place, in about 1 % of the time; the last picture stays.

    The picture is also the run's curves.png, and outside a notebook only that.
    """

    def __init__(self, run: Run, share: float = 0.01):
        self.run, self.share, self.seconds = run, share, 0.0
        self.handle, self.start = None, time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" in logs and self.seconds <= self.share * (time.perf_counter() - self.start):
            self._draw()

    def on_train_end(self, args, state, control, **kwargs):
        self._draw()

    def _draw(self) -> None:
        begin = time.perf_counter()
        picture = png(training_curves(self.run))
        (self.run.folder / "curves.png").write_bytes(picture)
        if get_ipython():
            if self.handle is None:
                self.handle = display(Image(picture), display_id=True)
            else:
                self.handle.update(Image(picture))
        self.seconds += time.perf_counter() - begin


def cost_of_looking(callbacks, train_seconds: float) -> str:
    """One sentence: the share of the training time that each callback took."""
    shares = [(type(c).__name__, c.seconds / train_seconds) for c in callbacks]
    return "Share of training time: " + ", ".join(f"{name} {share:.1%}" for name, share in shares)
