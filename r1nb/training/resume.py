"""Resume an unfinished run of the same recipe, and stop a run at ^C so that no step is lost."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import signal
import threading
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from transformers import TrainerCallback

from r1nb.errors import Interrupted, UserError
from r1nb.machine.configs import check_configs, check_saves, steps_between_saves
from r1nb.machine.hardware import environment
from r1nb.machine.out_of_memory import out_of_memory_in_words, remedy_for
from r1nb.policy.adapters import NOT_FINITE, is_finite
from r1nb.policy.loading import starting_adapter
from r1nb.processes import from_main, processes
from r1nb.recipes.settings import OURS, section_keys
from r1nb.rewards.judge import require_judge
from r1nb.rewards.own import hashes, keep_copies
from r1nb.runs.activity import READY, asked_to_stop, clear, say_now
from r1nb.runs.checkpoints import last_checkpoint
from r1nb.runs.disk import full_disk_in_words
from r1nb.runs.run import Run
from r1nb.training.canary import SampledBase
from r1nb.training.restore import let_gloo_resume, restore_adapter, restore_order

# Locks of run folders. They are held until this process ends, and released even if it is killed.
_LOCKS: dict[Path, FileLock] = {}
PATIENCE = 10  # seconds to wait for the lock: a process that was killed takes some time to end
STOPPING = "Finishing this step, then saving"
SAMPLES_BASE = "samples_base"  # the alarm of the canary
MAY_DIFFER = ("about", "why", "output")  # sections in which runs of the same recipe may differ


def begin_run(recipe, rows=None, reuse: bool = False, **facts) -> Run:
    """Return the newest run of this recipe on these rows if it is unfinished, to be resumed; else a new run.

    `facts` are written to environment.json, and only a run with the same facts is resumed. The most important
    one is `parent`, the name of the run that this one builds on; its default is the recipe's `start_from`.
    With `reuse` a finished run is returned, too. The run is always new if the recipe says `resume: false`,
    while another process trains the old run, or if the old run ended with weights that are not finite or with
    completions of the base model. An old run is then neither changed nor removed. Raises UserError if TRL
    refuses a setting of the recipe, or if a judge that the recipe names does not answer.
    """
    check_configs(recipe)
    if "judge_reward_func" in recipe.rewards:
        require_judge(recipe.scoring.judge_url, recipe.scoring.judge_model)
    facts |= {} if rows is None else {"data": fingerprint(rows)}
    facts |= {"reward_files": files} if (files := hashes(recipe.rewards)) else {}
    facts |= {"processes": processes()} if processes() > 1 else {}
    if recipe.lora and recipe.lora.start_from and "parent" not in facts:
        adapter = starting_adapter(recipe)
        in_run = (adapter.parent / "recipe.yaml").is_file()
        facts["parent"] = adapter.parent.name if in_run else adapter.name
    run = _newest(recipe, facts) if recipe.output.resume else None
    if run and run.finished:
        if reuse:
            print(f"{run.label} is finished and stays as it is; resume=False would train another run.")
            return run
        run = None
    if run and not (taken := _take(run)):
        print(f"Resuming {run.label}, which did not finish; resume=False would begin a new run.")
        clear(run)
        run = _follow_moves(run, recipe)
    else:
        if run:
            print(f"{run.label} {taken}, so this is a new run.")
        _take(run := new_run(recipe, **facts))
    say_now(run, READY)
    return run


def _follow_moves(run: Run, recipe) -> Run:
    """The run, with the paths of today in its recipe.yaml: its proof will load the model from there."""
    now = {section: dict(values) if section in ("model", "data") else values
           for section, values in run.recipe.items()}  # fmt: skip
    now["model"]["model_name"], now["data"]["dataset"] = recipe.model.model_name, recipe.data.dataset
    if now == run.recipe:
        return run
    partial = run.folder / ".recipe.part"
    partial.write_text(yaml.safe_dump(now, sort_keys=False), encoding="utf-8")
    os.utime(partial, (run.made, run.made))
    partial.replace(run.folder / "recipe.yaml")
    print(f"What moved since then has its new path in {run.label}/recipe.yaml.")
    return Run(run.folder)


def new_run(recipe, **facts) -> Run:
    """Create a run folder for a recipe; environment.json holds versions, machine, rewards and `facts`."""
    limits = {name: [reward.low, reward.high] for name, reward in recipe.judge().rewards.items()}
    ranges = {name: [x if math.isfinite(x) else None for x in both] for name, both in limits.items()}
    recorded = {**environment(), "rewards": ranges, **facts}
    run = Run.create(recipe.output.runs_dir, recipe.model_dump(), recorded)
    keep_copies(recipe.rewards, run.folder)
    return run


def fingerprint(rows) -> dict:
    """{"rows": how many, "sha256": the hash of their questions and golds, in their order}."""
    pairs = zip(rows["question"], rows["answer"], strict=True)
    text = "".join(json.dumps([question, answer]) for question, answer in pairs)
    return {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _newest(recipe, facts: dict) -> Run | None:
    """The newest run of the same recipe and facts; None if there is none, or its weights are of no use.

    If the newest run with this recipe's name did not finish and is another one, it says what differs.
    """
    wanted, namesakes = yaml.safe_load(yaml.safe_dump(recipe.model_dump())), []
    for run in Run.all(recipe.output.runs_dir):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # a broken run is skipped
            known = dict.fromkeys(["data", "parent", "processes", "reward_files", *facts])
            others = [key for key in known if run.environment.get(key) != facts.get(key)]
            differ = _differences(run.recipe, wanted, "data" in facts and "data" not in others) + others
            if not differ:
                failed = any(line["alarm"] in ("not_finite", SAMPLES_BASE) for line in run.alarms())
                return None if failed else run
            if run.recipe["name"] == wanted["name"]:
                namesakes.append((run, differ))
    if namesakes and not namesakes[0][0].finished:
        run, differ = namesakes[0]
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        print(f"{run.label} did not finish, but differs from this new run in {', '.join(differ[:4])}{more}.")
    return None


def _differences(old: dict, new: dict, same_rows: bool) -> list[str]:
    """The settings that matter in which two recipes differ, as in "grpo.seed (1, now 2)".

    A key that only one of them has counts with its default. A path that moved does not matter.
    """
    found = []
    for section in dict.fromkeys([*new, *old]):
        before, now = (recipe.get(section, {}) for recipe in (old, new))
        if section == "rewards" or not (isinstance(before, dict) and isinstance(now, dict)):
            before, now, defaults = {"": before}, {"": now}, {}
        else:
            defaults = _defaults(section)
        for key in dict.fromkeys([*now, *before]) if section not in MAY_DIFFER else ():
            a, b = (values.get(key, defaults.get(key)) for values in (before, now))
            if a != b and not _moved(a, b, same_rows and key == "dataset"):
                found.append(f"{section}.{key} ({a}, now {b})".replace(". (", " ("))
    return found


def _defaults(section: str) -> dict:
    """The defaults of a section of a recipe; TRL has those of grpo and sft."""
    import trl

    if section not in ("grpo", "sft"):
        return {key: field.default for key, field in section_keys(section).items()} if section in OURS else {}
    config = trl.GRPOConfig if section == "grpo" else trl.SFTConfig
    return {field.name: field.default for field in dataclasses.fields(config)}


def _moved(old, new, same_content: bool) -> bool:
    """Whether two absolute paths name one thing: with the same content, or the old path is gone."""
    if not all(isinstance(path, str) and Path(path).is_absolute() for path in (old, new)):
        return False
    return same_content or (Path(old).name == Path(new).name and not Path(old).exists())


def _take(run: Run) -> str:
    """Lock a run until this process ends; the reason why that is not possible, or "" if it is."""
    path = run.folder / ".lock"
    if run.folder not in _LOCKS or not path.exists():
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            return "is being trained by another process"
        except OSError as error:
            return f"cannot be written to ({error.strerror})"
        _LOCKS[run.folder] = lock
    return ""


class AlreadyTrained(Exception):  # noqa: N818  # not an error: it ends trainer.train()
    """Raised if the checkpoint is of the last step, because transformers would train one step more."""


class Resume(TrainerCallback):
    """Restore what transformers and TRL do not restore from a checkpoint, and stop the training on demand.

    After the first ^C, or activity.ask_to_stop, the step is finished and saved; a second ^C stops at once.
    """

    def __init__(self, checkpoint: Path | None, run: Run):
        self.checkpoint, self.run, self.asked = checkpoint, run, False

    def on_signal(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say_now(self.run, STOPPING)
        print(f"{STOPPING}; interrupt once more to stop at once.", flush=True)

    def on_log(self, args, state, control, **kwargs):
        # Only the main process reads the figures; its decision holds for all processes.
        control.should_training_stop = from_main(lambda: control.should_training_stop)

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        if self.checkpoint:
            restore_adapter(model, self.checkpoint)
            restore_order(train_dataloader, args, state)
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_step_end(self, args, state, control, **kwargs):
        self.asked = self.asked or from_main(lambda: asked_to_stop(self.run))
        # While several steps share a batch of completions, a checkpoint between them could not be resumed.
        if self.asked and state.global_step % steps_between_saves(args) == 0:
            control.should_save = control.should_training_stop = True


@contextlib.contextmanager
def resumable(trainer, run: Run):
    """Wrap trainer.train(resume_from_checkpoint=...) so that the run can be resumed.

    It yields the path of the last complete checkpoint, or None; the history drops the steps after it. ^C, or
    Interrupt in Jupyter, loses nothing and leaves the kernel usable; several processes stop at once and are
    resumed from their last checkpoint. If all steps are trained already, the run is loaded and not trained
    further. Raises UserError if the run is finished, if training ends before the last step, or if the weights
    are not finite. If the canary finds that the base model is sampled, the history gets an alarm.
    """
    check_saves(trainer.args)
    if run.finished:
        raise UserError(f"{run.label} is finished: run the notebook from the top to train another run.")
    steps = trainer.args.max_steps
    step, checkpoint = last_checkpoint(run, print)
    if trained := [line["step"] for line in run.history() if "loss" in line]:
        where = f"after step {step}" if step else "from step 0, since there is no checkpoint"
        again = f"; {max(trained) - step} steps are done again" if max(trained) > step else ""
        print(f"Resuming {where} of {steps}{again}.")
    run.undo_after(step)
    resume = Resume(checkpoint, run)
    trainer.add_callback(resume)
    # Only the main thread may set a signal handler; several processes would stop in different steps.
    heard = threading.current_thread() is threading.main_thread() and processes() == 1
    if processes() > 1:
        let_gloo_resume()
    before = signal.signal(signal.SIGINT, resume.on_signal) if heard else None
    try:
        remedy = remedy_for(run.recipe["name"], run.recipe["grpo"])
        with out_of_memory_in_words(remedy, run), full_disk_in_words(run):
            yield str(checkpoint) if checkpoint else None
    except SampledBase as error:  # in the middle of a step, after which the Watchdog would run
        run.append({"step": trainer.state.global_step, "alarm": SAMPLES_BASE, "sentence": str(error)})
        raise
    except AlreadyTrained:
        print(f"All {steps} steps are trained already.")
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    except KeyboardInterrupt:
        kept, _ = last_checkpoint(run)  # the newest one may be incomplete
        kept = f"its checkpoint of step {kept}" if kept else "no checkpoint"
        raise Interrupted(f"Stopped at once; {run.label} keeps {kept}: run this again to resume.") from None
    finally:
        if heard:
            signal.signal(signal.SIGINT, before)
        trainer.remove_callback(resume)
        clear(run)
    _check_end(trainer, run, resume.asked)


def _check_end(trainer, run: Run, interrupted: bool) -> None:
    """Raise an error with the reason if training ended before its last step or with weights not finite."""
    if not is_finite(trainer.model):
        raise UserError(NOT_FINITE)
    step, steps = trainer.state.global_step, trainer.args.max_steps
    if interrupted and last_checkpoint(run)[0] == step:
        raise Interrupted(f"Stopped after step {step} of {steps}, saved in {run.label}: run again to resume.")
    if step >= steps:
        return
    said = [line["sentence"] for line in run.alarms() if line["step"] == step]
    raise UserError(" ".join([f"The training ended after step {step} of {steps}.", *said]))
