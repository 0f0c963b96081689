"""Prove that the saved adapter or model is the trained one: load it in a fresh process and compare answers.

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
from r1nb.evaluation.comparison import compare
from r1nb.paths import write_json
from r1nb.policy.adapters import starting_at_0
from r1nb.policy.loading import load_policy
from r1nb.policy.policy import Completion
from r1nb.policy.trained import with_base
from r1nb.processes import alone
from r1nb.recipes.loading import load_recipe, recipe_of_run
from r1nb.recipes.recipe import NEUTRAL
from r1nb.rewards.grading import grade, make_judge
from r1nb.rewards.own import as_trained
from r1nb.runs.disk import full_disk_in_words
from r1nb.runs.run import Run
from r1nb.text.statistics import wilson

FEW = 0.1  # a smaller share of changed answers is called few


@dataclass(frozen=True)
class Proof:
    """The saved adapter's answers to n problems in a fresh process, compared with the trained policy's."""

    n: int
    same_as_trained: int  # answers equal, token for token, to those of the policy in memory
    differs_from_base: int
    norm: float | None = 0.0  # of all LoRA B matrices, which start at 0; None without an adapter
    strict: float = 0.0  # strict accuracy of the reloaded adapter
    trained: list[float] = field(default_factory=list)  # [strict accuracy, low, high] of the trained policy
    base: float = 0.0  # strict accuracy of the base model
    p: float = 0.0  # McNemar's exact test: are the reloaded adapter and the base model right equally often?
    not_run: str = ""  # the reason, if the GPU has no memory for a second process

    @property
    def holds(self) -> bool:
        """Whether the saved weights are not 0, some answers differ from the base model's, and the accuracy is
        within the trained policy's interval.
        """
        if self.not_run:
            return False
        _, low, high = self.trained
        return self.norm != 0 and self.differs_from_base > 0 and low <= self.strict <= high

    def __str__(self) -> str:
        if self.not_run:
            return f"The adapter is saved, but not yet checked: {self.not_run}"
        strict, low, high = self.trained
        what = "model" if self.norm is None else "adapter"
        norm = "" if self.norm is None else f"Its B matrices have norm {self.norm:.3g}; they start at 0. "
        return (
            f"In a fresh process the saved {what} gave the trained policy's answer to "
            f"{self.same_as_trained} of {self.n} problems, and another answer than the base model to "
            f"{self.differs_from_base}.\n{norm}"
            f"Strict accuracy: {self.strict:.1%}; trained policy: {strict:.1%} [{low:.1%}, {high:.1%}]; "
            f"base model: {self.base:.1%}.\n{self._verdict(what)}"
        )

    def _verdict(self, what: str) -> str:
        """Whether the saved weights are the trained ones, and whether they do more than the base model."""
        same = self.same_as_trained == self.n
        if same and (self.norm == 0 or not self.differs_from_base):
            why = "its weights are 0" if self.norm == 0 else "no answer differs from the base model's"
            return f"Faithful, but without effect: the saved {what} is what was trained, but {why}."
        if not self.holds:
            return f"NOT faithful: do not trust this {what}."
        word, said = "Faithful", f"the saved {what} is what was trained"
        if not same:
            word = "Probably faithful"
            said = f"the saved {what} is as accurate as what was trained; on a GPU some answers may differ"
        few = self.differs_from_base < FEW * self.n
        if not few and self.p < 0.05:
            return f"{word}: {said}."
        why = "Few answers differ" if few else f"Its accuracy does not differ measurably (p = {self.p:.2g})"
        return f"{word}, and close to the base: {said}. {why} from the base model's."


def prove(run, rows, trained: list, base: list) -> Proof:
    """Answer `rows` greedily with the run's saved adapter in a fresh process, and compare; the run is then
    finished.

    `trained` and `base` are the results of accuracy.evaluate for the policy in memory on the same rows, with
    and without the adapter. On a CPU in fp32 all answers are equal, because both processes use the same
    batches. The fresh process always generates with transformers, even if another engine holds the GPU. On a
    GPU sums are computed in another order, so some answers may differ.
    """
    from accelerate.utils import release_memory

    try:
        recipe = load_recipe(run)
    except UserError:  # a run that another version began
        recipe = recipe_of_run(run).model_copy(update={"rewards": run.reward_weights})
    with as_trained(run):
        judge = recipe.judge(rows.column_names)  # this process grades; raises for an unknown reward
    release_memory()  # frees unused memory for the fresh process
    print(f"Loading the saved weights of {run.name} in a fresh process, to compare their answers.")
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder, "rows.json"), Path(folder, "answers.json")
        task.write_text(json.dumps(list(rows), default=str), encoding="utf-8")
        command = [sys.executable, "-m", "r1nb.evaluation.proof", str(run.folder), str(task), str(result)]
        done = subprocess.run(
            command, env=alone(), capture_output=True, text=True, errors="replace", check=False
        )
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if not done.returncode:
            proof = _compare(json.loads(result.read_text(encoding="utf-8")), rows, judge, trained, base)
        elif "Out of memory" in reason:
            why = f"there was not enough memory to load it in a second process ({reason})."
            proof = Proof(0, 0, 0, not_run=why)
        else:
            raise UserError(f"The saved weights of {run.name} cannot be loaded in a fresh process: {reason}")
    with full_disk_in_words(run):
        write_json(run.folder / "proof.json", asdict(proof))
    return proof


def _compare(fresh: dict, rows, judge, trained: list, base: list) -> Proof:
    """Make the Proof; `fresh` is the result of the fresh process: {"answers": [text, ids, cut], "norm"}."""
    completions = [Completion(text, tuple(ids), cut) for text, ids, cut in fresh["answers"]]
    graded, answers, n = grade(rows[:], completions, judge), [c.ids for c in completions], len(completions)
    same = sum(ids == graded.ids for ids, graded in zip(answers, trained, strict=True))
    others = sum(ids != graded.ids for ids, graded in zip(answers, base, strict=True))
    strict, right = sum(bool(g.strict) for g in graded) / n, sum(bool(graded.strict) for graded in trained)
    trained_rate, base_rate = [right / n, *wilson(right, n)], sum(bool(graded.strict) for graded in base) / n
    p = compare(base, graded).p
    return Proof(n, same, others, fresh["norm"], strict, trained_rate, base_rate, p)


def main(folder: str, task: str, result: str) -> None:
    import torch
    from datasets import Dataset
    from torch.nn.utils import get_total_norm

    run = Run(folder)
    recipe = recipe_of_run(run)
    if recipe.lora:
        recipe = with_base(recipe)
    changes = {"engine": "transformers", "fast_inference": False}
    changes |= {} if recipe.lora else {"model_name": str(run.model)}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})
    batch_size = recipe.evaluation.eval_batch_size
    if torch.cuda.is_available():  # the training process still uses the GPU
        batch_size = min(8, batch_size)
    policy = load_policy(recipe)
    norm = None
    if recipe.lora:
        policy.load_adapter(run.adapter, recipe.layout)
        norm = float(get_total_norm([weights.detach() for weights in starting_at_0(policy.model)]))
    rows = Dataset.from_list(json.loads(Path(task).read_text(encoding="utf-8")))
    # The parent grades the answers, since only it may know the run's rewards.
    graded = evaluate(policy, rows, make_judge(NEUTRAL, recipe.layout), recipe.greedy, batch_size)
    answers = {"answers": [[g.completion, g.ids, g.cut] for g in graded], "norm": norm}
    Path(result).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
