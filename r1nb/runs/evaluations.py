"""What a run folder holds of its evaluations: summaries, and every graded answer behind them.

evaluation.json     {split: {stage: summary}}    evaluation/     the answers of each stage
held_out/           the answers to the validation slice, one file a look
"""

import json
from pathlib import Path

from r1nb.evaluation.accuracy import Graded, as_records, summarize
from r1nb.paths import write_json
from r1nb.processes import main_only


class Evaluated:
    """The part of runs.Run that evaluations are written to and read from."""

    folder: Path

    @main_only
    def write_held_out(self, step: int, records: list[dict]) -> None:
        """Keep the graded answers to the validation slice of one look."""
        write_json(self.folder / "held_out" / f"{step:05d}.json", records)

    def held_out(self, step: int) -> list[dict]:
        """The graded answers to the validation slice after a step."""
        return json.loads((self.folder / "held_out" / f"{step:05d}.json").read_text())

    def looks(self) -> list[int]:
        """The first, middle and last step after which the validation slice was answered."""
        steps = sorted(int(path.stem) for path in (self.folder / "held_out").glob("*.json"))
        return sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []

    @main_only
    def write_evaluation(self, stage: str, splits: dict) -> None:
        """Add the summaries of a stage ("before", "prefilled", "after") to evaluation.json.

        {split: {stage: summary}}; the graded answers go to evaluation/<stage>-<split>.json.
        """
        path = self.folder / "evaluation.json"
        whole = self.evaluation()
        for split, graded in splits.items():
            whole.setdefault(split, {})[stage] = summarize(graded)
            write_json(self.folder / "evaluation" / f"{stage}-{split}.json", as_records(graded))
        write_json(path, whole)

    @main_only
    def write_samples(self, stage: str, split: str, groups: list[list]) -> None:
        """Keep several sampled and graded answers to each problem, beside the stage's greedy ones."""
        groups = [as_records(group) for group in groups]
        write_json(self.folder / "evaluation" / f"{stage}-{split}-samples.json", groups)

    def evaluation(self) -> dict:
        """evaluation.json, or {} before there is one."""
        path = self.folder / "evaluation.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def graded(self, stage: str) -> dict[str, list]:
        """{split: evaluation.Graded of each problem} of a stage, as far as it was evaluated."""
        return {
            split: _read_graded(self.folder / "evaluation" / f"{stage}-{split}.json")
            for split, stages in self.evaluation().items()
            if stage in stages
        }

    def samples(self, stage: str) -> dict[str, list[list]]:
        """{split: groups of sampled evaluation.Graded} of a stage."""
        end = "-samples.json"
        paths = sorted((self.folder / "evaluation").glob(f"{stage}-*{end}"))
        return {path.name.removeprefix(f"{stage}-").removesuffix(end): _read_graded(path) for path in paths}


def _read_graded(path: Path) -> list:
    """What as_records wrote: Graded, or groups of them."""

    def made(record):
        if isinstance(record, list):
            return [made(each) for each in record]
        return Graded(**record | {"ids": tuple(record["ids"])})

    return made(json.loads(path.read_text()))
