"""Callbacks of GRPOTrainer: record the run, validate the policy, raise alarms.

Each callback adds up the seconds it takes, so that its share of the training time can be printed.
"""

import contextlib
import math
import time

from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate
from r1nb.policy.adapters import starting_at_0
from r1nb.processes import whole_weights
from r1nb.rewards.grading import Judge, as_records, summarize
from r1nb.runs.activity import TRAINING, say_now
from r1nb.runs.run import Run
from r1nb.training.watchdog import find_alarms, last_sampled


class Recorder(TrainerCallback):
    """Append each line that the trainer logs to the run's history immediately.

    It adds `adapter/norm`, the norm of all trainable LoRA B matrices, which start at 0.
    """

    def __init__(self, run: Run):
        self.run, self.seconds, self.start = run, 0.0, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        say_now(self.run, TRAINING)
        before = self.run.series("time")[1][-1:] or [0.0]  # seconds of training before a resume
        self.start = time.perf_counter() - before[0]

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        begin = time.perf_counter()
        if "loss" in logs:
            lora = [weights for weights in starting_at_0(model) if weights.requires_grad]
            if self.run.recipe["lora"]:
                with whole_weights(lora):
                    norm = float(get_total_norm([weights.detach() for weights in lora])) if lora else 0.0
                logs["adapter/norm"] = norm  # for the callbacks after this one, too
            self.run.append({"step": state.global_step, "time": begin - self.start, **logs})
        self.seconds += time.perf_counter() - begin

    def on_save(self, args, state, control, **kwargs):
        self.run.write_readme()

    def on_train_end(self, args, state, control, **kwargs):
        say_now(self.run, "")


class Validation(TrainerCallback):
    """Answer the validation rows greedily every eval_every steps; log strict, lenient and format rates.

    Each process answers all rows, since processes that share the weights can only generate together.
    """

    def __init__(self, run: Run, policy, rows, recipe):
        self.run, self.policy, self.rows, self.seconds = run, policy, rows, 0.0
        self.judge, self.sampling = recipe.judge(rows.column_names), recipe.greedy
        self.every, self.batch_size = recipe.evaluation.eval_every, recipe.evaluation.eval_batch_size

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 and not self.run.series("validation/n")[0]:
            self._validate(state)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps or state.global_step % self.every == 0:
            self._validate(state)

    def _validate(self, state) -> None:
        begin = time.perf_counter()
        graded = evaluate(self.policy, self.rows, self.judge, self.sampling, self.batch_size, run=self.run)
        say_now(self.run, TRAINING)
        self.run.write_validation(state.global_step, as_records(graded))
        summary = summarize(graded)
        rates = {f"validation/{k}": summary[k] for k in ("strict", "lenient", "format", "tokens", "n")}
        self.run.append({"step": state.global_step, **rates})
        self.seconds += time.perf_counter() - begin


class Observer(TrainerCallback):
    """Call `observe` as often as SHARE of the training time allows, and also at NaN and at the end.

    An error in `observe` is printed once and never ends the training. The run is opened anew for each call
    and not kept, so that memory does not grow with the number of steps.
    """

    SHARE = 0.01

    def __init__(self, run: Run):
        self.run, self.seconds, self.start, self.failed = run, 0.0, 0.0, False

    def observe(self, run: Run, args, state, control) -> None:
        raise NotImplementedError

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        due = self.seconds <= self.SHARE * (time.perf_counter() - self.start)
        if "loss" in logs and (due or not math.isfinite(logs.get("adapter/norm", 0.0))):
            self._observe(args, state, control)

    def on_train_end(self, args, state, control, **kwargs):
        self._observe(args, state, control)

    def _observe(self, args, state, control) -> None:
        if not state.is_world_process_zero:
            return
        begin = time.perf_counter()
        try:
            self.observe(Run(self.run.folder), args, state, control)
        except Exception as error:
            if not self.failed:
                print(f"{type(self).__name__} failed, training goes on: {type(error).__name__}: {error}")
            self.failed = True
        self.seconds += time.perf_counter() - begin


class Watchdog(Observer):
    """Print each new alarm once and write it into the history; stop the training at NaN."""

    def __init__(self, run: Run, judge: Judge):
        super().__init__(run)
        self.judge = judge

    def observe(self, run: Run, args, state, control) -> None:
        heard = {line["alarm"] for line in run.alarms()}
        log = None
        if steps := last_sampled(run.history(), args):
            with contextlib.suppress(UserError):  # the completions of these steps are not logged
                log = run.completions(*steps)
        for alarm in find_alarms(run.history(), self.judge, args, log, run.checkpoints()):
            if alarm.kind == "not_finite":
                control.should_training_stop = True
            if alarm.kind not in heard:
                run.append({"step": alarm.step, "alarm": alarm.kind, "sentence": alarm.sentence})
                print(f"Step {alarm.step}: {alarm.sentence}")
