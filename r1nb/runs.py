"""The run folder: everything that lasts of a run, written as it happens, reopened any time.

recipe.yaml         the recipe as used           history.jsonl   one line a step, and each
environment.json    versions, machine, commit                    look at the validation slice
completions/        TRL's completion log         checkpoint-*/   TRL's checkpoints
evaluation.json     accuracy before and after    adapter/        the trained adapter
"""

import json
import os
import re
from pathlib import Path

import yaml

from r1nb.errors import UserError
from r1nb.paths import runs_folder


class Run:
    """A run folder. `Run.create(recipe)` makes a new one beside the others, `Run(path)` opens one."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).expanduser().resolve()
        self._history: tuple[int, list[dict]] = 0, []  # size of the file when read, its lines
        if not (self.folder / "recipe.yaml").is_file():
            raise UserError(f"{folder} is no run folder: it holds no recipe.yaml.")

    @classmethod
    def create(cls, recipe) -> "Run":
        """Make the next free folder, <recipe>-001 and so on; nothing is ever overwritten."""
        from r1nb.hardware import environment

        parent = runs_folder(recipe.output.runs_dir)
        parent.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(p.name[-3:]) for p in _numbered(parent, recipe.name)), default=0)
        while True:
            folder = parent / f"{recipe.name}-{number:03d}"
            try:
                folder.mkdir()
                break
            except FileExistsError:  # another run took it this moment
                number += 1
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False))
        _write_json(folder / "environment.json", environment())
        return cls(folder)

    @classmethod
    def latest(cls, runs_dir: str) -> "Run | None":
        """The newest run that saved an adapter; None if there is none."""
        found = sorted(runs_folder(runs_dir).glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
        found = [path.parent for path in found if (path.parent / "adapter").is_dir()]
        return cls(found[-1]) if found else None

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def label(self) -> str:
        """The folder as shown: without what lies above the folder of runs."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def name(self) -> str:
        return self.folder.name

    def recipe(self):
        """The recipe as it was used."""
        from r1nb.recipe import build_recipe

        return build_recipe(yaml.safe_load((self.folder / "recipe.yaml").read_text()))

    def weights(self) -> dict[str, float]:
        """The weight of each reward."""
        return yaml.safe_load((self.folder / "recipe.yaml").read_text())["rewards"]

    def append(self, record: dict) -> None:
        """Add one line to the history, safe against a crash once this returns."""
        with (self.folder / "history.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict]:
        """The lines so far; a torn last line (the run is being written, or was killed) is left out."""
        path = self.folder / "history.jsonl"
        size = path.stat().st_size if path.is_file() else 0
        if size != self._history[0]:
            lines = path.read_text().split("\n")[:-1]
            self._history = size, [json.loads(line) for line in lines if line.strip()]
        return self._history[1]

    def advice(self) -> list[dict]:
        """What the watchdog has said: {"step", "advice": kind, "sentence"}."""
        return [line for line in self.history() if "advice" in line]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """(steps, values) of one figure of the history."""
        pairs = [(h["step"], h[key]) for h in self.history() if h.get(key) is not None]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def completions(self, step: int | None = None):
        """TRL's completion log as a pandas.DataFrame: of one step, or of all.

        Columns: step, prompt, completion, one for each reward, answer, tokens, advantage.
        """
        import pandas

        folder = self.folder / "completions"
        pattern = "*.parquet" if step is None else f"completions_{step:05d}.parquet"
        files = sorted(folder.glob(pattern))
        if not files:
            raise UserError(f"Run {self.name} has no completions of step {step or 'any'}.")
        return pandas.concat([pandas.read_parquet(file) for file in files], ignore_index=True)

    def write_held_out(self, step: int, records: list[dict]) -> None:
        """Keep the graded answers to the validation slice of one look."""
        (self.folder / "held_out").mkdir(exist_ok=True)
        _write_json(self.folder / "held_out" / f"{step:05d}.json", records)

    def held_out(self, step: int) -> list[dict]:
        """The graded answers to the validation slice after a step."""
        return json.loads((self.folder / "held_out" / f"{step:05d}.json").read_text())

    def looks(self) -> list[int]:
        """The first, middle and last step after which the validation slice was answered."""
        steps = sorted(int(path.stem) for path in (self.folder / "held_out").glob("*.json"))
        return sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []

    def write_evaluation(self, stage: str, splits: dict) -> None:
        """Add the summaries of a stage ("before", "prefilled", "after") to evaluation.json.

        {split: {stage: summary}}; the graded answers go to evaluation/<stage>-<split>.json.
        """
        from r1nb.evaluation import as_records, summarize

        path = self.folder / "evaluation.json"
        whole = self.evaluation()
        (self.folder / "evaluation").mkdir(exist_ok=True)
        for split, graded in splits.items():
            whole.setdefault(split, {})[stage] = summarize(graded)
            _write_json(self.folder / "evaluation" / f"{stage}-{split}.json", as_records(graded))
        _write_json(path, whole)

    def evaluation(self) -> dict:
        """evaluation.json, or {} before there is one."""
        path = self.folder / "evaluation.json"
        return json.loads(path.read_text()) if path.is_file() else {}


def _numbered(parent: Path, name: str) -> list[Path]:
    pattern = re.compile(re.escape(name) + r"-\d{3}")
    return [path for path in parent.iterdir() if pattern.fullmatch(path.name)]


def _write_json(path: Path, value) -> None:
    """Whole or not at all: a reader never sees half a file."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)
