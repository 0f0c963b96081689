"""What a run is doing now, and the wish to stop it: two small files, so that any process can read and ask."""

import contextlib
import os

import psutil

from r1nb.processes import main_only

NOW, STOP = "now.txt", "stop"
READY, TRAINING = "getting ready", "training"


@main_only
def say_now(run, sentence: str) -> None:
    """Keep one sentence about what the run does at the moment, or none if it is "".

    A full disk does not end the training.
    """
    with contextlib.suppress(OSError):
        if not sentence:
            (run.folder / NOW).unlink(missing_ok=True)
            return
        (run.folder / NOW).write_text(f"{os.getpid()}\n{sentence}", encoding="utf-8")


def doing_now(run) -> str:
    """The last sentence of say_now; "" if there is none, or if its process has ended."""
    try:
        number, _, sentence = (run.folder / NOW).read_text(encoding="utf-8").partition("\n")
        return sentence if psutil.pid_exists(int(number)) else ""
    except (OSError, ValueError):
        return ""


def is_idle(run) -> bool:
    """Whether no process has said that it works on the run, or it has said that it no longer does."""
    return not (run.folder / NOW).exists()


def ask_to_stop(run) -> None:
    """Ask the process that trains the run to finish its step, save and stop."""
    (run.folder / STOP).touch()


def asked_to_stop(run) -> bool:
    return (run.folder / STOP).exists()


def clear(run) -> None:
    """Forget what the run did last, and any wish to stop it."""
    for name in (NOW, STOP):
        (run.folder / name).unlink(missing_ok=True)
