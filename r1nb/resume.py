"""Runs that go on: an unfinished run of the same recipe is continued, and ^C ends one so that it can be."""

import contextlib
import hashlib
import json
import signal
import threading
import zipfile
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from transformers import TrainerCallback

from r1nb.errors import UserError
from r1nb.runs import Run

_LOCKS: dict[
    Path, FileLock
] = {}  # held as long as this process lives, and released by its end, however it comes
PATIENCE = 10  # seconds that a process which was killed with its parent may take to end
OTHERWISE = ("about", "why", "output")  # sections in which a recipe may change and be the same


def begin_run(recipe, rows=None) -> Run:
    """The newest run of this recipe on these rows if it did not finish, to go on with; else a new one.

    `run.checkpoint` is what to hand to trainer.train(resume_from_checkpoint=...): the folder of the last
    good checkpoint, or None. Steps after it are undone in the history, by a line that says so. With
    the recipe's `resume: false`, and while another process trains that run, it is always a new one; no old
    run is ever changed or removed.
    """
    facts = {} if rows is None else {"data": fingerprint(rows)}
    run = _unfinished(recipe, facts) if recipe.output.resume else None
    if run and _take(run):
        _go_on(run)
        return run
    if run:
        print(f"{run.label} is being trained by another process, so this is a run of its own.")
    run = Run.create(recipe, **facts)
    _take(run)
    return run


def fingerprint(rows) -> dict:
    """{"rows", "sha256"}: of the questions and golds, in their order."""
    digest = hashlib.sha256()
    for question, answer in zip(rows["question"], rows["answer"], strict=True):
        digest.update(json.dumps([question, answer]).encode())
    return {"rows": len(rows), "sha256": digest.hexdigest()}


def _unfinished(recipe, facts: dict) -> Run | None:
    """The newest run of the same recipe and rows, unless it is finished."""
    wanted = yaml.safe_load(yaml.safe_dump(recipe.to_dict()))
    for run in Run.all(recipe.output.runs_dir):
        with contextlib.suppress(
            UserError, OSError, ValueError
        ):  # another's broken folder is not ours to judge
            same = all(run.settings.get(k) == v for k, v in wanted.items() if k not in OTHERWISE)
            if same and run.environment.get("data") == facts.get("data"):
                return None if run.finished else run
    return None


def _take(run: Run) -> bool:
    """Keep other processes from this run until this one ends; False if another has it."""
    if run.folder not in _LOCKS:
        lock = FileLock(run.folder / ".lock", thread_local=False)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            return False
        _LOCKS[run.folder] = lock
    return True


def _go_on(run: Run) -> None:
    step = 0
    for number in reversed(run.checkpoints()):
        folder = run.folder / f"checkpoint-{number}"
        if not (fault := find_fault(folder, number)):
            step, run.checkpoint = number, str(folder)
            break
        print(f"{folder.name} is skipped: {fault}.")
    run.undo_after(step)
    where = f"after step {step}" if step else "from its start, since it has no checkpoint"
    print(f"Going on with {run.label}, which did not finish, {where}; resume=False would begin anew.")


def find_fault(checkpoint: Path, step: int) -> str:
    """Why training cannot go on from a checkpoint, in words; "" if it can.

    Each file is read: sizes and checksums of what was being written when a process was killed are wrong.
    Nothing is unpickled.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        if state["global_step"] != step:
            return f"its trainer_state.json is of step {state['global_step']}"
        weights = [*checkpoint.glob("adapter_model.safetensors"), *checkpoint.glob("model*.safetensors")]
        archives = [
            *checkpoint.glob("rng_state*.pth"),
            checkpoint / "optimizer.pt",
            checkpoint / "scheduler.pt",
        ]
        if not weights or len(archives) < 3:
            return "its weights are missing" if not weights else "rng_state.pth is missing"
        for file in weights:
            with safe_open(file, "pt") as tensors:
                if not all(torch.isfinite(tensors.get_tensor(name)).all() for name in tensors.keys()):  # noqa: SIM118
                    return f"{file.name} holds numbers that are not finite"
        for file in archives:
            if damaged := zipfile.ZipFile(file).testzip():
                return f"{file.name} is damaged at {damaged}"
    except FileNotFoundError as error:
        return f"{Path(error.filename or checkpoint).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile) as error:
        return f"it is not whole ({str(error).splitlines()[0]})"
    return ""


class AlreadyTrained(Exception):  # noqa: N818  # no error: it ends trainer.train()
    """The checkpoint is of the last step: transformers would train one more."""


class StopAfterStep(TrainerCallback):
    """Once asked by ^C: finish the step, save a checkpoint, end the training. Asked again: end at once."""

    def __init__(self):
        self.asked = False

    def on_signal(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("Finishing this step, then saving; interrupt once more to stop at once.", flush=True)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_step_end(self, args, state, control, **kwargs):
        # Within a batch of completions that serves several steps, a checkpoint could not be resumed.
        batch = getattr(args, "steps_per_generation", 1) * getattr(args, "num_iterations", 1)
        if self.asked and state.global_step * args.gradient_accumulation_steps % batch == 0:
            control.should_save = control.should_training_stop = True


@contextlib.contextmanager
def interruptible(trainer, run: Run):
    """Around trainer.train(): ^C, or Interrupt in Jupyter, loses nothing and leaves the kernel usable.

    A run that was trained to its end, but not saved, is loaded and not trained further.
    """
    stop = StopAfterStep()
    trainer.add_callback(stop)
    heard = threading.current_thread() is threading.main_thread()  # Python allows handlers nowhere else
    before = signal.signal(signal.SIGINT, stop.on_signal) if heard else None
    steps = trainer.args.max_steps
    try:
        yield
    except AlreadyTrained:
        print(f"All {steps} steps are trained already.")
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    except KeyboardInterrupt:
        kept = max(run.checkpoints(), default=0)
        kept = f"its checkpoint of step {kept}" if kept else "no checkpoint"
        raise UserError(f"Stopped at once; {run.label} keeps {kept}: run this again to go on.") from None
    finally:
        if heard:
            signal.signal(signal.SIGINT, before)
        trainer.remove_callback(stop)
    if stop.asked and trainer.state.global_step < steps:
        raise UserError(
            f"Stopped after step {trainer.state.global_step} of {steps}, which is saved in {run.label}: run "
            "this again to go on from there."
        )
