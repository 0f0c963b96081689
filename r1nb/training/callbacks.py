"""What GRPOTrainer calls while it trains: record the run, look at held-out problems, draw, warn.

Each callback adds up the seconds it takes, so that a run can say what looking at it cost.
"""

import contextlib
import math
import time

from IPython import get_ipython
from IPython.display import HTML, Image, display
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import as_records, evaluate, summarize
from r1nb.views.plots import png, training_curves
from r1nb.processes import whole_weights
from r1nb.runs.run import Run
from r1nb.views.tables import completion_table
from r1nb.training.watchdog import advise, window


class Recorder(TrainerCallback):
    """Write every line that the trainer logs of a step into the run's history, as it comes.

    `adapter/norm` is added: the norm of all LoRA B matrices in training, which start at 0.
    """

    def __init__(self, run: Run):
        self.run, self.seconds, self.start = run, 0.0, 0.0
        self.begun = self.ended = 0.0  # of this process's part of the training

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun = self.ended = time.perf_counter()
        before = self.run.series("time")[1][-1:] or [0.0]  # of a run that is resumed
        self.start = self.begun - before[0]

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        begin = time.perf_counter()
        if "loss" in logs:
            lora = [w for name, w in model.named_parameters() if w.requires_grad and "lora_B" in name]
            if self.run.settings["lora"]:
                with whole_weights(lora):
                    norm = float(get_total_norm([weights.detach() for weights in lora])) if lora else 0.0
                logs["adapter/norm"] = norm  # for the callbacks after this one, too
            self.run.append({"step": state.global_step, "time": begin - self.start, **logs})
        self.ended = time.perf_counter()
        self.seconds += self.ended - begin


class HeldOut(TrainerCallback):
    """Greedy strict, lenient and format rate on the validation slice, every eval_every steps.

    Every process answers all of it: where each holds a share of the weights, only together can they generate.
    """

    def __init__(self, run: Run, policy, rows, recipe):
        self.run, self.policy, self.rows, self.recipe = run, policy, rows, recipe
        self.seconds = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 and not self.run.series("held_out/n")[0]:
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


class Looking(TrainerCallback):
    """Looks at the run as often as SHARE of the training time allows, at its end, and at NaN.

    What goes wrong in a look is printed once and never ends the training. Each look reads the run
    anew and lets it go: nothing grows with the steps.
    """

    SHARE = 0.01

    def __init__(self, run: Run):
        self.run, self.seconds, self.start, self.failed = run, 0.0, 0.0, False

    def look(self, run: Run, state, control) -> None:
        raise NotImplementedError

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        due = self.seconds <= self.SHARE * (time.perf_counter() - self.start)
        if "loss" in logs and (due or not math.isfinite(logs.get("adapter/norm", 0.0))):
            self._look(state, control)

    def on_train_end(self, args, state, control, **kwargs):
        self._look(state, control)

    def _look(self, state, control) -> None:
        if not state.is_world_process_zero:
            return
        begin = time.perf_counter()
        try:
            self.look(Run(self.run.folder), state, control)
        except Exception as error:
            if not self.failed:
                print(f"{type(self).__name__} failed, training goes on: {type(error).__name__}: {error}")
            self.failed = True
        self.seconds += time.perf_counter() - begin


class Watchdog(Looking):
    """Say what the figures call for, once each, and keep it in the history; stop at NaN."""

    def __init__(self, run: Run, recipe):
        super().__init__(run)
        self.recipe = recipe

    def look(self, run: Run, state, control) -> None:
        heard = {line["advice"] for line in run.advice()}
        log, last = None, state.global_step
        span = window(self.recipe) * int(self.recipe.grpo.get("logging_steps", 1))
        with contextlib.suppress(UserError):  # no completions yet
            log = run.completions(*range(max(1, last - span), last + 1))
        for advice in advise(run.history(), self.recipe, log, run.checkpoints()):
            if advice.kind == "not_finite":
                control.should_training_stop = True
            if advice.kind not in heard:
                run.append({"step": advice.step, "advice": advice.kind, "sentence": advice.sentence})
                print(f"Step {advice.step}: {advice.sentence}")


class LiveView(Looking):
    """Redraw the run's curves and its latest group in place; the last of both stay.

    The picture is also the run's curves.png; without a notebook, a line of figures is printed.
    """

    SHARE = 0.02

    def __init__(self, run: Run):
        super().__init__(run)
        self.handles = []

    def look(self, run: Run, state, control) -> None:
        picture = png(training_curves(run))
        (run.folder / "curves.png").write_bytes(picture)
        if not hasattr(get_ipython(), "kernel"):
            print(run.progress()[1], flush=True)
            return
        shown = [Image(picture)]
        if step := run.logged(state.global_step):
            table = completion_table(run, [step], each=run.settings["grpo"].get("num_generations", 8))
            shown.append(HTML(f'<div style="max-height:420px;overflow:auto">{table.to_html()}</div>'))
        for handle, thing in zip(self.handles, shown, strict=False):
            handle.update(thing)
        self.handles += [display(thing, display_id=True) for thing in shown[len(self.handles) :]]


def cost_of_looking(callbacks) -> str:
    """One sentence: the share of the training time that each callback took; one is the Recorder."""
    recorder = next(callback for callback in callbacks if isinstance(callback, Recorder))
    trained = recorder.ended - recorder.begun
    if not trained:
        return "Nothing was left to train."
    shares = [(type(c).__name__, c.seconds / trained) for c in callbacks]
    return "Share of training time: " + ", ".join(f"{name} {share:.1%}" for name, share in shares)
