"""The run folder: all files of a run, written while it trains, and read at any time.

recipe.yaml         the recipe as used           history.jsonl   one line a step, and each
environment.json    versions, machine, ...                       validation and alarm
completions/        TRL's completion log         checkpoint-*/   TRL's checkpoints
evaluation.json     accuracy before and after    adapter/        the trained adapter, or model/

Of several processes that train together only the main one writes; a write in another does nothing.
"""

import contextlib
import json
import os
import re
import tempfile
import time
from functools import cached_property
from pathlib import Path

import yaml

from r1nb.errors import UserError
from r1nb.paths import runs_folder, write_json
from r1nb.processes import main_only
from r1nb.runs.evaluations import Evaluations

REJECTION = "rejection.json"  # what rejection sampling kept and dropped
CARD = "r1nb.json"  # beside an adapter or a model: what it belongs to; written last, when all else is there


class Run(Evaluations):
    """The files of a run. `Run(path)` opens a folder; `load_recipe(run)` gives its recipe."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).expanduser().resolve()
        self._size, self._lines = 0, []  # of the history when it was last read, and its lines
        if not (self.folder / "recipe.yaml").is_file():
            raise UserError(f"{folder} is no run folder: it holds no recipe.yaml.")
        self.made = (self.folder / "recipe.yaml").stat().st_mtime  # seconds since 1970

    def __fspath__(self) -> str:
        return str(self.folder)

    @classmethod
    def create(cls, runs_dir: str, recipe: dict, environment: dict) -> "Run":
        """Make the next free folder, <recipe>-001 and so on; nothing is ever overwritten.

        `recipe` becomes recipe.yaml, `environment` environment.json: versions, machine, reward ranges.
        """
        parent, name = runs_folder(runs_dir), recipe["name"]
        parent.mkdir(parents=True, exist_ok=True)
        taken = re.compile(re.escape(name) + r"-(\d{3})").fullmatch
        number = 1 + max((int(m[1]) for path in parent.iterdir() if (m := taken(path.name))), default=0)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))  # filled, and only then made visible
        new.chmod(0o755)
        (new / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        write_json(new / "environment.json", environment)
        while True:
            folder = parent / f"{name}-{number:03d}"
            try:
                new.rename(folder)
                return cls(folder)
            except OSError:
                if not folder.exists():
                    raise
                number += 1  # another run took it this moment

    @classmethod
    def all(cls, runs_dir: str) -> "list[Run]":
        """Every run of a folder of runs, the newest first."""
        recipes = runs_folder(runs_dir).glob("[!.]*/recipe.yaml")  # a run that is being made has a dot
        return sorted((cls(path.parent) for path in recipes), key=lambda run: run.made, reverse=True)

    @classmethod
    def named(cls, name: str, runs_dir: str) -> "Run":
        """A run that saved an adapter, by its name in a folder of runs or by its own folder."""
        folder = runs_folder(runs_dir) / Path(name).expanduser()
        if not (folder / "adapter" / CARD).is_file():
            finished = [run.name for run in cls.all(runs_dir) if (run.adapter / CARD).is_file()][:8]
            why = "it did not finish, so that it has no adapter" if folder.is_dir() else "it does not exist"
            others = f"there are {', '.join(finished)}" if finished else "there is none"
            raise UserError(f"Run {name!r} cannot be built on: {why}; of finished runs {others}.")
        return cls(folder)

    @classmethod
    def latest(cls, runs_dir: str) -> "Run | None":
        """The newest run that saved an adapter or a whole model; None if there is none."""
        return next((run for run in cls.all(runs_dir) if any(run.folder.glob(f"*/{CARD}"))), None)

    @property
    def finished(self) -> bool:
        """Whether the run is complete: what it trained is saved, and proof.prove has checked it."""
        return (self.folder / "proof.json").is_file()

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def model(self) -> Path:
        """The whole model that a run without an adapter trains."""
        return self.folder / "model"

    @property
    def trained(self) -> Path:
        """The adapter, or the model of a run without one."""
        return self.adapter if self.recipe.get("lora") else self.model

    @property
    def label(self) -> str:
        """The run's name after that of the folder of runs, as messages show it."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def recipe(self) -> dict:
        """The recipe as it was used, as plain values by section."""
        recipe = yaml.safe_load((self.folder / "recipe.yaml").read_text())
        if not isinstance(recipe, dict) or not {"grpo", "rewards", "data"} <= set(recipe):
            raise UserError(f"{self.label}/recipe.yaml is no recipe: move that folder away.")
        return recipe

    @property
    def reward_weights(self) -> dict[str, float]:
        return self.recipe["rewards"]

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """(lowest, highest) that each reward pays: also of rewards that only the run's notebook knew."""
        return self.environment["rewards"]

    @cached_property
    def environment(self) -> dict:
        """Versions, machine, and what else is needed to repeat the run."""
        return json.loads((self.folder / "environment.json").read_text())

    def best_total(self) -> float:
        """What an ideal completion earns in all."""
        return sum(self.ranges[name][1] * weight for name, weight in self.reward_weights.items())

    @main_only
    def append(self, record: dict) -> None:
        """Add one line to the history, safe against a crash once this returns."""
        with (self.folder / "history.jsonl").open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the torn line of a writer that was killed
                    file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict]:
        """The lines so far; a torn line (the run is being written, or was killed) is left out."""
        path = self.folder / "history.jsonl"
        content = path.read_bytes() if path.is_file() else b""
        if len(content) != self._size:
            self._size, self._lines = len(content), []
            for text in content.split(b"\n")[:-1]:
                with contextlib.suppress(ValueError):
                    line = {_renamed(key): value for key, value in json.loads(text).items()}
                    if "resumed" in line:  # what came after that step was undone
                        self._lines = [earlier for earlier in self._lines if earlier["step"] <= line["step"]]
                    self._lines.append(line)
        return self._lines

    @main_only
    def undo_after(self, step: int) -> None:
        """Remove what was recorded after a step; the history keeps its lines, and one more says so.

        {"step", "resumed"}: history() leaves out the lines before it that are of later steps.
        """
        if any(line["step"] > step for line in self.history()) and (whole := self.evaluation()):
            for moments in whole.values():
                moments.pop("after", None)
            write_json(self.folder / "evaluation.json", whole)
        if self.history():
            self.append({"step": step, "resumed": True})
        for number, path in (*self._logs().items(), *self._validations().items()):
            if number > step:
                path.unlink()

    def progress(self) -> tuple[int, str]:
        """(last step, "step 24 of 64, reward 2.31, 38 s left" at the latest pace); of SFT the loss."""
        trained = [line for line in self.history() if "time" in line]
        by_sft = bool(trained and self.recipe.get("sft")) and not any("reward" in line for line in trained)
        steps = self.recipe["sft" if by_sft else "grpo"]["max_steps"]
        if not trained:
            return 0, f"step 0 of {steps}"
        last = trained[-1]
        before = trained[-11:][0] if len(trained) > 1 else {"step": 0, "time": 0.0}
        step, name = last["step"], "loss" if by_sft else "reward"
        pace = (last["time"] - before["time"]) / (step - before["step"])
        quiet = time.time() - (self.folder / "history.jsonl").stat().st_mtime
        when = f"{_duration(pace * (steps - step))} left"
        if step == steps or self.finished:
            when = f"in {_duration(last['time'])}"
        elif quiet > 60 + 10 * pace:
            when = f"nothing new for {_duration(quiet)}"
        figure = f"no {name}" if last.get(name) is None else f"{name} {last[name]:.2f}"
        return step, f"step {step} of {steps}, {figure}, {when}"

    def alarms(self) -> list[dict]:
        """The watchdog's alarms, each {"step", "alarm": kind, "sentence"}."""
        return [line for line in self.history() if "alarm" in line]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """(steps, values) of one figure of the history."""
        pairs = [(h["step"], h[key]) for h in self.history() if h.get(key) is not None]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def completions(self, *steps: int):
        """TRL's completion log as a pandas.DataFrame: of some steps, or of all.

        Columns: step, prompt, completion, one for each reward, their weighted total, answer (the
        gold), tokens, cut and advantage. A file that is being written, or was torn, is left out.
        """
        import pandas

        files, logs = self._logs(), []
        for step in steps or sorted(files):
            with contextlib.suppress(KeyError, OSError, ValueError):
                logs.append(pandas.read_parquet(files[step]))
        if not logs:
            wanted = ", ".join(map(str, steps)) or "any"
            raise UserError(f"Run {self.name} has no completions of step {wanted}.")
        log = pandas.concat(logs, ignore_index=True)
        # None counts as 0, as in TRL.
        log["total"] = sum(log[name].fillna(0) * weight for name, weight in self.reward_weights.items())
        for name, missing in (("answer", ""), ("tokens", 0), ("cut", False)):
            log[name] = log.get(name, missing)  # of reward functions that were not told the end tokens
        return log

    def logged(self, step: int) -> int | None:
        """The last step up to `step` whose completions are in the log; None if there is none."""
        return max((number for number in self._logs() if number <= step), default=None)

    def _logs(self) -> dict[int, Path]:
        """The files of TRL's completion log by step."""
        files = (self.folder / "completions").glob("completions_*.parquet")
        return {int(path.stem.rpartition("_")[2]): path for path in files}

    def rejection(self) -> dict:
        """What rejection sampling kept and dropped; {} of a run without it (older runs: harvest.json)."""
        paths = (self.folder / name for name in (REJECTION, "harvest.json"))
        return next((json.loads(path.read_text()) for path in paths if path.is_file()), {})

    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints that are kept."""
        numbers = [path.name.rpartition("-")[2] for path in self.folder.glob("checkpoint-*")]
        return sorted(int(number) for number in numbers if number.isdigit())


def _renamed(key: str) -> str:
    """A key of the history under today's name: runs of r1nb before 0.2 said held_out and advice."""
    return "alarm" if key == "advice" else key.replace("held_out/", "validation/")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
