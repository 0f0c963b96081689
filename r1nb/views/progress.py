"""What a run is, and how far it is, each in one line."""

import contextlib
import math
import re
import time
from datetime import datetime

from r1nb.runs.activity import is_idle
from r1nb.views.html import visible


def describe(run) -> str:
    """A run in one line: name, model, data, strict accuracy before and after, or else the last step, date.

    "first-try-001 · tiny-policy · bundled · 0 → 86 % · 26 Nov 10:41". It never raises: what cannot be read in
    a damaged run is left out.
    """
    said = [run.name]
    for part in (
        lambda: short(run.recipe["model"]["model_name"]),
        lambda: short(run.recipe["data"]["dataset"]),
        lambda: _accuracy(run) or progress(run)[1].partition(",")[0],
        lambda: _date(run.made),
    ):
        with contextlib.suppress(Exception):
            said.append(part())
    return visible(" · ".join(said))


def short(value, most: int = 36) -> str:
    """The last part of a path or of a name on the Hub, or another value, as text of at most `most` signs."""
    text = re.split(r"[/\\]", str(value).rstrip("/\\"))[-1]
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _accuracy(run) -> str:
    """Strict accuracy before and after on the first test split that has both; "" if none has."""
    for moments in run.evaluation().values():
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # torn, or not measured
            rates = [100 * float(moments[moment]["strict"]) for moment in ("before", "after")]
            return " → ".join(f"{round(rate)}" for rate in rates) + " %"
    return ""


def _date(seconds: float) -> str:
    """A moment as 26 Nov 10:41; in another year than this as 26 Nov 2025."""
    moment = datetime.fromtimestamp(seconds)
    form = "%b %H:%M" if moment.year == datetime.now().year else "%b %Y"
    return f"{moment.day} {moment:{form}}"


def progress(run) -> tuple[int, str]:
    """(last step, "step 24 of 64, reward 2.31, 38 s left" at the latest pace); for SFT with the loss."""
    trained, name, steps = _stage(run)
    if not trained:
        return 0, f"step 0 of {steps}"
    last = trained[-1]
    step, (pace, quiet) = last["step"], _pace(run, trained)
    when = f"{_duration(pace * (steps - step))} left"
    if step == steps or run.finished:
        when = f"in {_duration(last['time'])}"
    elif is_idle(run):
        when = "stopped: run it again to resume"
    elif quiet:
        when = f"nothing new for {_duration(quiet)}"
    figure = f"no {name}" if last.get(name) is None else f"{name} {last[name]:.2f}"
    return step, f"step {step} of {steps}, {figure}, {when}"


def planned_steps(run) -> int:
    """The step at which a run ends if nothing stops it."""
    return _stage(run)[2]


def steps_to_show(run) -> int:
    """The planned steps of a run that trains; of one that has stopped or not begun, the steps it trained."""
    trained, _, steps = _stage(run)
    if not trained:
        return 0
    return trained[-1]["step"] if run.finished or _pace(run, trained)[1] else steps


def _stage(run) -> tuple[list[dict], str, int]:
    """The lines of trained steps, "reward" or for SFT "loss", and the number of planned steps."""
    trained = [line for line in run.history() if 0 < (line.get("time") or 0) < math.inf]
    sft = bool(trained) and "max_steps" in (run.recipe.get("sft") or ())
    by_sft = sft and not any("reward" in line for line in trained)
    return trained, "loss" if by_sft else "reward", run.recipe["sft" if by_sft else "grpo"]["max_steps"]


def _pace(run, trained: list[dict]) -> tuple[float, float]:
    """(seconds a step lately, seconds since the last line if these are suspiciously many, else 0)."""
    last = trained[-1]
    before = trained[-11:][0] if len(trained) > 1 else {"step": 0, "time": 0.0}
    pace = (last["time"] - before["time"]) / max(1, last["step"] - before["step"])
    quiet = time.time() - (run.folder / "history.jsonl").stat().st_mtime
    return pace, quiet if quiet > 60 + 10 * pace else 0.0


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
