"""Proof that a saved adapter, or model, is what was trained: load it in a fresh process and compare.

python -m r1nb.evaluation.proof RUN_FOLDER ROWS.json ANSWERS.json     # what the fresh process runs
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.evaluation.accuracy import evaluate
from r1nb.paths import write_json
from r1nb.policy.loading import load_policy
from r1nb.processes import alone
from r1nb.recipes.loading import load_recipe
from r1nb.runs.run import Run
from r1nb.text.statistics import wilson


@dataclass(frozen=True)
class Proof:
    """What a fresh process made of the saved adapter on n problems, beside what was trained."""

    n: int
    same_as_trained: int  # answers equal, token for token, to those of the policy in memory
    differs_from_base: int
    norm: float | None = 0.0  # of all its LoRA B matrices, which start at 0; None without an adapter
    strict: float = 0.0  # accuracy of the reloaded adapter,
    trained: list[float] = field(default_factory=list)  # and of the trained policy, with its interval
    not_run: str = ""  # why, if the card has no room for a second process

    @property
    def holds(self) -> bool:
        """Whether its weights are not 0, some of its answers are not the base's, and its accuracy lies within
        the trained policy's interval.
        """
        if self.not_run:
            return False
        _, low, high = self.trained
        return self.norm != 0 and self.differs_from_base > 0 and low <= self.strict <= high

    def __str__(self) -> str:
        if self.not_run:
            return f"The adapter is saved, but not yet proven: {self.not_run}"
        strict, low, high = self.trained
        what = "model" if self.norm is None else "adapter"
        norm = "" if self.norm is None else f"Its B matrices have norm {self.norm:.3g}; they start at 0. "
        return (
            f"In a fresh process the saved {what} gave the trained policy's answer to "
            f"{self.same_as_trained} of {self.n} problems, and another than the base to "
            f"{self.differs_from_base}.\n{norm}"
            f"Strict accuracy: {self.strict:.1%}; as trained {strict:.1%} [{low:.1%}, {high:.1%}].\n"
            f"{'Proven.' if self.holds else f'NOT proven: do not trust this {what}.'}"
        )


def prove(run, rows, trained: list, base: list) -> Proof:
    """Answer `rows` greedily in a fresh process from the run's saved adapter, and compare; the run is then
    finished.

    `trained` and `base` are what accuracy.evaluate gave for the policy in memory on the same rows, with and
    without the adapter. Equality is exact on a CPU in fp32, where both answer in the same batches. The fresh
    process always generates with transformers, beside whatever engine holds the GPU; there, sums run in
    another order and some answers may differ.
    """
    from accelerate.utils import release_memory

    release_memory()  # what nothing refers to any more: the fresh process needs room
    print(f"Loading what {run.name} saved in a fresh process, to compare its answers.")
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder, "rows.json"), Path(folder, "answers.json")
        task.write_text(json.dumps(list(rows), default=str))
        command = [sys.executable, "-m", "r1nb.evaluation.proof", str(run.folder), str(task), str(result)]
        done = subprocess.run(command, env=alone(), capture_output=True, text=True, check=False)
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if not done.returncode:
            proof = _compare(json.loads(result.read_text()), trained, base)
        elif "Out of memory" in reason:
            why = f"there was no room to load it again beside this process ({reason})."
            proof = Proof(0, 0, 0, not_run=why)
        else:
            raise UserError(f"What {run.name} saved could not be loaded afresh: {reason}")
    write_json(run.folder / "proof.json", asdict(proof))
    return proof


def _compare(fresh: dict, trained: list, base: list) -> Proof:
    """`fresh` is what the fresh process wrote: {"ids", "strict", "norm"}."""
    answers, n = [tuple(ids) for ids in fresh["ids"]], len(fresh["ids"])
    same = sum(ids == graded.ids for ids, graded in zip(answers, trained, strict=True))
    others = sum(ids != graded.ids for ids, graded in zip(answers, base, strict=True))
    strict, right = sum(map(bool, fresh["strict"])) / n, sum(bool(graded.strict) for graded in trained)
    return Proof(n, same, others, fresh["norm"], strict, [right / n, *wilson(right, n)])


def main(folder: str, task: str, result: str) -> None:
    import torch
    from datasets import Dataset
    from torch.nn.utils import get_total_norm

    run = Run(folder)
    recipe = load_recipe(run)
    changes = {"engine": "transformers", "fast_inference": False}
    changes |= {} if recipe.lora else {"model_name": str(run.model)}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})
    batch_size = recipe.evaluation.eval_batch_size
    if torch.cuda.is_available():  # beside the process that trained
        batch_size = min(8, batch_size)
    policy = load_policy(recipe, say=lambda line: None)
    norm = None
    if recipe.lora:
        policy.load_adapter(run.adapter, recipe.layout)
        weights = [w.detach() for name, w in policy.model.named_parameters() if "lora_B" in name]
        norm = float(get_total_norm(weights))
    rows = Dataset.from_list(json.loads(Path(task).read_text()))
    graded = evaluate(policy, rows, recipe.judge(rows.column_names), recipe.greedy, batch_size)
    answers = {"ids": [g.ids for g in graded], "strict": [g.strict for g in graded], "norm": norm}
    Path(result).write_text(json.dumps(answers))


if __name__ == "__main__":
    run_main(main)
