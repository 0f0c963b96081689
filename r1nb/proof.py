"""Proof that a saved adapter is what was trained: load it in a fresh process and compare answers.

python -m r1nb.proof RUN_FOLDER ROWS.json ANSWERS.json     # what the fresh process runs
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.oom import free_memory


@dataclass(frozen=True)
class Proof:
    """Of n problems: how many the reloaded adapter answers as the trained policy did, token for
    token, and how many it answers otherwise than the base does."""

    n: int
    same_as_trained: int
    differs_from_base: int
    not_run: str = ""  # why, if the card has no room for a second process

    def __str__(self) -> str:
        if self.not_run:
            return f"The adapter is saved, but not yet proven: {self.not_run}"
        return (
            f"In a fresh process the saved adapter gave the trained policy's answer to "
            f"{self.same_as_trained} of {self.n} problems, and another than the base to "
            f"{self.differs_from_base}."
        )


def prove(run, rows, trained: list, base: list) -> Proof:
    """Answer `rows` greedily in a fresh process from the run's saved adapter, and compare tokens.

    `trained` and `base` are what evaluation.evaluate gave for the policy in memory on the same rows,
    with and without the adapter. Equality is exact on a CPU in fp32. The fresh process always
    generates with transformers, beside whatever engine holds the GPU; there, sums run in another
    order and some answers may differ.
    """
    free_memory()
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder, "rows.json"), Path(folder, "answers.json")
        columns = ("prompt", "question", "answer")
        task.write_text(json.dumps([{c: row[c] for c in columns} for row in rows]))
        command = [sys.executable, "-m", "r1nb.proof", str(run.folder), str(task), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            if "Out of memory" in reason:
                return Proof(0, 0, 0, f"beside this kernel there was no room to load it again ({reason}).")
            raise UserError(f"The adapter of {run.name} could not be loaded afresh: {reason}")
        answers = [tuple(ids) for ids in json.loads(result.read_text())]
    return Proof(
        n=len(answers),
        same_as_trained=sum(a == b.ids for a, b in zip(answers, trained, strict=True)),
        differs_from_base=sum(a != b.ids for a, b in zip(answers, base, strict=True)),
    )


def main(folder: str, task: str, result: str) -> None:
    import torch
    from datasets import Dataset

    from r1nb.evaluation import evaluate
    from r1nb.models import load_policy
    from r1nb.runs import Run

    run = Run(folder)
    recipe = run.recipe()
    recipe.model = replace(recipe.model, engine="transformers", fast_inference=False)
    if torch.cuda.is_available():  # beside the process that trained
        recipe.evaluation.eval_batch_size = min(8, recipe.evaluation.eval_batch_size)
    policy = load_policy(recipe, say=lambda line: None)
    policy.load_adapter(run.adapter)
    rows = Dataset.from_list(json.loads(Path(task).read_text()))
    answers = [graded.ids for graded in evaluate(policy, rows, recipe)]
    Path(result).write_text(json.dumps(answers))


if __name__ == "__main__":
    run_main(main)
