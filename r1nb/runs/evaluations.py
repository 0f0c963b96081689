"""Evaluations in a run folder: summaries, and every graded answer behind them.

evaluation.json     {split: {moment: summary}}   evaluation/     the answers at each moment
validation/         the answers to the validation rows, one file for each validation
"""

from pathlib import Path

from r1nb.errors import say_once
from r1nb.paths import read_json, write_json
from r1nb.processes import main_only
from r1nb.rewards.grading import Graded, as_records, summarize

# The moments at which test rows are answered. "prefilled": the untrained policy, with its reply prefilled.
MOMENTS = {"before": "before", "prefilled": "before, prefilled", "after": "after"}


class Evaluations:
    """The part of runs.Run that writes and reads evaluations."""

    folder: Path

    @main_only
    def write_validation(self, step: int, records: list[dict]) -> None:
        """Write the graded answers to the validation rows after a step."""
        write_json(self.folder / "validation" / f"{step:05d}.json", records)

    def validation(self, step: int) -> list[dict]:
        """The graded answers to the validation rows after a step; [] if their file is torn."""
        return read_json(self._validations()[step], [])

    def validation_steps(self) -> list[int]:
        """All steps after which the validation rows were answered."""
        return sorted(self._validations())

    def validated(self) -> list[int]:
        """The first, middle and last step after which the validation rows were answered."""
        steps = [step for step in self.validation_steps() if self.validation(step)]
        return sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []

    def _validations(self) -> dict[int, Path]:
        """{step: file}; older runs have these files in held_out/."""
        files = (*self.folder.glob("held_out/*.json"), *self.folder.glob("validation/*.json"))
        return {int(path.stem): path for path in files if path.stem.isdecimal()}

    @main_only
    def write_evaluation(self, moment: str, splits: dict) -> None:
        """Add the summaries of a moment ("before", "prefilled", "after") to evaluation.json.

        That file holds {split: {moment: summary}}; the graded answers go to evaluation/<moment>-<split>.json.
        """
        whole = self.evaluation()
        for split, graded in splits.items():
            whole.setdefault(split, {})[moment] = summarize(graded)
            write_json(self.folder / "evaluation" / f"{moment}-{split}.json", as_records(graded))
        write_json(self.folder / "evaluation.json", whole)

    @main_only
    def write_samples(self, moment: str, split: str, groups: list[list]) -> None:
        """Write several sampled answers to each problem, graded, in addition to the greedy answers."""
        groups = [as_records(group) for group in groups]
        write_json(self.folder / "evaluation" / f"{moment}-{split}-samples.json", groups)

    def evaluation(self) -> dict:
        """The contents of evaluation.json; {} if there is none yet, or if it is torn."""
        return read_json(self.folder / "evaluation.json", {})

    def graded(self, moment: str) -> dict[str, list]:
        """{split: one Graded for each problem} at a moment, for the splits that were evaluated then."""
        evaluated = [split for split, moments in self.evaluation().items() if moment in moments]
        folder = self.folder / "evaluation"
        read = {split: _read(folder / f"{moment}-{split}.json", list[Graded]) for split in evaluated}
        return {split: graded for split, graded in read.items() if graded}

    def samples(self, moment: str) -> dict[str, list[list]]:
        """{split: groups of sampled answers, as Graded} at a moment."""
        end = "-samples.json"
        paths = sorted((self.folder / "evaluation").glob(f"{moment}-*{end}"))
        names = [path.name.removeprefix(f"{moment}-").removesuffix(end) for path in paths]
        read = {name: _read(path, list[list[Graded]]) for name, path in zip(names, paths, strict=True)}
        return {split: groups for split, groups in read.items() if groups}


def _read(path: Path, shape) -> list:
    if not path.exists():
        say_once(f"{path} is missing, and with it the answers that it held.")
    return read_json(path, [], shape)
