"""How far a run is, in one line."""

import math
import time


def progress(run) -> tuple[int, str]:
    """(last step, "step 24 of 64, reward 2.31, 38 s left" at the latest pace); for SFT with the loss."""
    trained = [line for line in run.history() if 0 < (line.get("time") or 0) < math.inf]
    sft = bool(trained) and "max_steps" in (run.recipe.get("sft") or ())
    by_sft = sft and not any("reward" in line for line in trained)
    steps = run.recipe["sft" if by_sft else "grpo"]["max_steps"]
    if not trained:
        return 0, f"step 0 of {steps}"
    last = trained[-1]
    before = trained[-11:][0] if len(trained) > 1 else {"step": 0, "time": 0.0}
    step, name = last["step"], "loss" if by_sft else "reward"
    pace = (last["time"] - before["time"]) / max(1, step - before["step"])
    quiet = time.time() - (run.folder / "history.jsonl").stat().st_mtime
    when = f"{_duration(pace * (steps - step))} left"
    if step == steps or run.finished:
        when = f"in {_duration(last['time'])}"
    elif quiet > 60 + 10 * pace:
        when = f"nothing new for {_duration(quiet)}"
    figure = f"no {name}" if last.get(name) is None else f"{name} {last[name]:.2f}"
    return step, f"step {step} of {steps}, {figure}, {when}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
