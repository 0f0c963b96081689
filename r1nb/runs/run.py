"""The run folder: all files of a run, written while it trains, and read at any time.

recipe.yaml         the recipe as used           history.jsonl   one line for each step,
environment.json    versions, machine, ...                       validation and alarm
completions/        TRL's completion log         checkpoint-*/   TRL's checkpoints
evaluation.json     accuracy before and after    adapter/        the trained adapter, or model/
now.txt, stop       see runs/activity.py

If several processes train together, only the main process writes; in the others a write does nothing.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from functools import cache, cached_property
from pathlib import Path

import yaml

from r1nb.errors import UserError, say_once
from r1nb.paths import read_json, runs_folder, shown, user_path, write_json
from r1nb.processes import main_only
from r1nb.runs.evaluations import Evaluations

REJECTION = "rejection.json"  # what rejection sampling kept and dropped
CARD = "r1nb.json"  # next to an adapter or a model: its base model, prompts and recipe; written last
# The columns of the completion log that are always there, besides the rewards.
COLUMNS = {"step": int, "prompt": str, "completion": str, "advantage": float}


class Run(Evaluations):
    """The files of a run. `Run(path)` opens a folder; `load_recipe(run)` gives its recipe."""

    def __init__(self, folder: Path | str):
        self.folder = user_path(folder).resolve()
        self._size, self._lines = 0, []  # size and lines of the history when it was last read
        if not (self.folder / "recipe.yaml").is_file():
            raise UserError(f"{folder} is not a run folder: it has no recipe.yaml.")
        stat = (self.folder / "recipe.yaml").stat()
        self.made = stat.st_mtime  # seconds since 1970
        self._stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def __fspath__(self) -> str:
        return str(self.folder)

    @classmethod
    def create(cls, runs_dir: str, recipe: dict, environment: dict) -> "Run":
        """Create the next free folder, <recipe>-001 and so on; an existing folder is never overwritten.

        Writes `recipe` to recipe.yaml, and `environment` (versions, machine, ...) to environment.json.
        """
        parent, name = runs_folder(runs_dir), recipe["name"]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))  # renamed once its files are written
            new.chmod(0o755)
            (new / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
            write_json(new / "environment.json", environment)
        except OSError as error:
            why = f"A run cannot be created in {parent} ({error.strerror})"
            raise UserError(f"{why}: make room there, or set another runs_dir.") from None
        taken = re.compile(re.escape(name) + r"-(\d{3})").fullmatch
        number = 1 + max((int(m[1]) for path in parent.iterdir() if (m := taken(path.name))), default=0)
        while True:
            folder = parent / f"{name}-{number:03d}"
            try:
                new.rename(folder)
                return cls(folder)
            except OSError:
                if not folder.exists():
                    raise
                number += 1  # another run has just taken this number

    @classmethod
    def all(cls, runs_dir: str) -> "list[Run]":
        """All runs in a folder of runs, the newest first; says once which are left out as broken."""
        runs = []
        for path in runs_folder(runs_dir).glob("[!.]*/recipe.yaml"):  # .new-*: still being created
            try:
                run = cls(path.parent)
                run.recipe  # noqa: B018  # raises if it is torn
                runs.append(run)
            except UserError as error:
                say_once(f"{error} The other runs can be used.")
        return sorted(runs, key=lambda run: run.made, reverse=True)

    @classmethod
    def latest(cls, runs_dir: str) -> "Run | None":
        """The newest run that saved an adapter or a whole model; None if there is none."""
        return next((run for run in cls.all(runs_dir) if any(run.folder.glob(f"*/{CARD}"))), None)

    @property
    def finished(self) -> bool:
        """Whether the run is complete: the trained weights are saved, and proof.prove has checked them."""
        return (self.folder / "proof.json").is_file()

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def model(self) -> Path:
        """The folder of the whole model, which a run without an adapter saves."""
        return self.folder / "model"

    @property
    def trained(self) -> Path:
        """The folder of the adapter, or of the model if the run has no adapter."""
        return self.adapter if self.recipe.get("lora") else self.model

    @property
    def label(self) -> str:
        """The path of the run folder, as messages show it."""
        return shown(self.folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def recipe(self) -> dict:
        """The recipe as it was used, as plain values by section."""
        return _parse_recipe(self.folder / "recipe.yaml", self._stamp)

    @property
    def reward_weights(self) -> dict[str, float]:
        return self.recipe["rewards"]

    @cached_property
    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """(lowest, highest) score of each reward, None if unknown; {} if environment.json is torn."""
        return self.environment.get("rewards", {})

    @cached_property
    def environment(self) -> dict:
        """Versions, machine, and what else is needed to repeat the run; {} if environment.json is torn."""
        return read_json(self.folder / "environment.json", {})

    def best_total(self) -> float | None:
        """The total reward of an ideal completion; None if the range of a reward is unknown."""
        weights = {name: weight for name, weight in self.reward_weights.items() if weight}
        highs = {name: self.ranges.get(name, (None, None))[1] for name in weights}
        return None if None in highs.values() else sum(highs[name] * weights[name] for name in weights)

    @main_only
    def write_readme(self) -> None:
        """Write README.md, which says what each file holds, over TRL's model card without a base model."""
        with contextlib.suppress(OSError):  # a full disk is reported by what must be written
            shutil.copyfile(Path(__file__).with_name("run_folder.md"), self.folder / "README.md")

    @main_only
    def append(self, record: dict) -> None:
        """Add one line to the history; once this returns, the line survives a crash."""
        with (self.folder / "history.jsonl").open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # an incomplete line: its writer was killed
                    file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict]:
        """The lines so far, without torn ones (still being written, or their writer was killed)."""
        path = self.folder / "history.jsonl"
        content = path.read_bytes() if path.is_file() else b""
        if len(content) != self._size:
            self._size, self._lines = len(content), []
            for text in content.split(b"\n")[:-1]:
                with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
                    line = {_renamed(key): value for key, value in json.loads(text).items()}
                    line["step"] = int(line["step"])
                    if "resumed" in line:  # training went back to that step
                        self._lines = [earlier for earlier in self._lines if earlier["step"] <= line["step"]]
                    self._lines.append(line)
        return self._lines

    @main_only
    def undo_after(self, step: int) -> None:
        """Remove the records of later steps, because the run is resumed from this step.

        The file of the history keeps its lines and gets the line {"step", "resumed"}, from which history()
        knows that earlier lines of later steps do not count.
        """
        if any(line["step"] > step for line in self.history()) and (whole := self.evaluation()):
            for moments in whole.values():
                moments.pop("after", None)
            write_json(self.folder / "evaluation.json", whole)
        if self.history():
            self.append({"step": step, "resumed": True})
        for number, path in (*self._logs().items(), *self._validations().items()):
            if number > step:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def alarms(self) -> list[dict]:
        """The watchdog's alarms, each {"step", "alarm": kind, "sentence"}."""
        return [line for line in self.history() if "alarm" in line]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """(steps, values) of one figure of the history."""
        pairs = [(h["step"], h[key]) for h in self.history() if h.get(key) is not None]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def completions(self, *steps: int):
        """TRL's completion log of the given steps, or of all steps, as a pandas.DataFrame.

        Columns: step, prompt, question (in older runs the whole prompt), completion, one for each reward,
        their weighted total, answer (the gold), tokens, cut (truncated) and advantage. A file that is
        incomplete or has other columns is left out. Raises UserError if no file is left.
        """
        import pandas

        files, logs = self._logs(), []
        for step in steps or sorted(files):
            with contextlib.suppress(KeyError, OSError, ValueError, TypeError):
                log = pandas.read_parquet(files[step])
                scores = {name: float for name in self.reward_weights if name in log}
                logs += [log.astype(COLUMNS | scores)] if len(log) else []
        if not logs:
            wanted = ", ".join(map(str, steps)) or "1 or later"
            raise UserError(f"Run {self.name} has no completions of step {wanted}.")
        log = pandas.concat(logs, ignore_index=True)
        lost = dict.fromkeys(self.reward_weights, float("nan"))
        absent = lost | {"question": log["prompt"], "answer": "", "tokens": 0, "cut": False}
        for name, missing in absent.items():
            log[name] = log.get(name, missing)  # the default, if no reward function logged it
        # None counts as 0, as in TRL.
        log["total"] = sum(log[name].fillna(0) * weight for name, weight in self.reward_weights.items())
        return log

    def sampled_questions(self) -> dict[int, list[str]]:
        """{step: the questions whose completions are in the log}, without torn files."""
        import pandas

        found = {}
        for step, path in sorted(self._logs().items()):
            for column in ("question", "prompt"):  # older runs have only the whole prompt
                with contextlib.suppress(KeyError, OSError, ValueError):
                    found[step] = list(dict.fromkeys(pandas.read_parquet(path, columns=[column])[column]))
                    break
        return found

    def logged(self, step: int) -> int | None:
        """The last step up to `step` whose completions are in the log; None if there is none."""
        return max((number for number in self._logs() if number <= step), default=None)

    def _logs(self) -> dict[int, Path]:
        """{step: file} of TRL's completion log."""
        files = (self.folder / "completions").glob("completions_*.parquet")
        numbered = {path.stem.rpartition("_")[2]: path for path in files}
        return {int(number): path for number, path in numbered.items() if number.isdecimal()}

    def rejection(self) -> dict:
        """The contents of rejection.json (older runs: harvest.json); {} without rejection sampling."""
        paths = (self.folder / name for name in (REJECTION, "harvest.json"))
        return next((read_json(path, {}) for path in paths if path.is_file()), {})

    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints that are kept."""
        numbers = [path.name.rpartition("-")[2] for path in self.folder.glob("checkpoint-*")]
        return sorted(int(number) for number in numbers if number.isdigit())


@cache
def _parse_recipe(path: Path, stamp: tuple) -> dict:
    """The recipe.yaml of a run; with another `stamp` (time, size, inode) it is parsed again.

    Raises UserError if it is damaged, or lacks the values that every run has.
    """
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        recipe = yaml.safe_load(path.read_bytes())
        needed = (recipe["name"], recipe["data"]["dataset"], recipe["grpo"]["max_steps"])
        if all(needed) and None not in {**recipe["rewards"]}.values():
            return recipe
    raise UserError(f"{shown(path)} is not a recipe, or it is damaged: restore it, or move that folder away.")


def _renamed(key: str) -> str:
    """The current name of a key of the history: r1nb before 0.2 wrote held_out and advice."""
    return "alarm" if key == "advice" else key.replace("held_out/", "validation/")
