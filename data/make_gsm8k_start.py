"""Start GRPO from a short SFT: which examples are better, and does GRPO add what more SFT steps do not?

    python data/make_gsm8k_start.py own MODEL     # the model's own right answers, put into the format
    python data/make_gsm8k_start.py sft MODEL own     # SFT on them; `solutions`: on GSM8K's solutions
    python data/make_gsm8k_start.py grpo MODEL own    # from that start, GRPO with the recipe of make_gsm8k.py
    python data/make_gsm8k_start.py more MODEL own    # instead of GRPO, as many more steps of SFT
    python data/make_gsm8k_start.py keep RUN ...      # keep recipe, history and validation answers of runs
    python data/make_gsm8k_start.py score             # the table, from the kept answers alone

MODEL is a GGUF file or a model folder; R1NB_GSM8K_DIR names the folder of GSM8K. The runs go into runs/. Only
the last 400 training rows, which are not trained on, decide which start is better. Afterwards the test
problems are answered once, for each RUN and its kept FOLDER of starts/:

    python data/make_gsm8k.py answer starts/FOLDER/test MODEL runs/RUN/adapter
"""

import gzip
import json
import re
import shutil
from itertools import combinations
from statistics import fmean

from make_gsm8k import BATCH, RECIPE, gsm8k, keep_recipe

from r1nb.errors import run_main
from r1nb.evaluation.accuracy import evaluate, evaluate_tests
from r1nb.evaluation.comparison import compare
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded, as_records, summarize
from r1nb.runs.run import Run
from r1nb.studies.real_model import FOLDER, STARTS, read_answers, read_validation
from r1nb.tasks.rows import load_rows, load_splits
from r1nb.text.prompts import REASONING
from r1nb.train import train
from r1nb.training.callbacks import Recorder
from r1nb.training.resume import begin_run
from r1nb.training.stages import finish, sft, solution_examples

OWN = FOLDER / "own.jsonl"
KEPT = ("question", "answer", "completion", "cut", "strict", "lenient", "format")
STEPS = 40  # of GRPO, or of more SFT
ASKED = 1400  # training questions that the model answers for OWN
SFT = {
    "learning_rate": 2e-4, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2,
    "optim": "adamw_torch", "weight_decay": 0.0, "max_grad_norm": 1.0, "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8, "max_length": 640, "gradient_checkpointing": False, "use_cpu": True,
    "logging_steps": 1, "save_strategy": "no", "report_to": "none",
}  # fmt: skip
SPLITS = {"test_problems": 8, "validation_problems": 400, "eval_batch_size": 200}


def in_format(graded: Graded) -> str:
    """The text of an answer in any format as reasoning: without tags, \\boxed{} and empty lines."""
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", graded.completion)
    for tag in REASONING.tags:
        text = text.replace(tag, "")
    return re.sub(r"\n{2,}", "\n", text).strip()


def own(model: str) -> None:
    """Answer training questions greedily, and keep the right answers with the columns of GSM8K."""
    rows = load_rows(gsm8k(), f"train[:{ASKED}]")
    recipe = load_recipe(RECIPE, model_name=model)
    graded = evaluate(load_policy(recipe), rows, recipe.judge(), recipe.greedy, BATCH, title="own answers")
    right = [g for g in graded if g.lenient and not g.cut and "```" not in g.completion]
    lines = [
        json.dumps({"question": g.question, "answer": f"{in_format(g)}\n#### {g.answer}"}) for g in right
    ]
    OWN.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(f"{len(right)} of {len(rows)} answers are right and without code")


def fine_tune(stage: str, model: str, source: str, steps: int, seed: int, **changes) -> Run:
    """SFT on a source of examples, "own" or "solutions", whose order the seed decides; then validation."""
    settings = SFT | {"max_steps": steps, "seed": seed}
    recipe = load_recipe(RECIPE, model_name=model, dataset=gsm8k(), sft=settings, **SPLITS, **changes)
    recipe = recipe.model_copy(update={"name": f"gsm8k-{stage}-{source}"})
    rows, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    rows = load_rows(str(OWN), "train") if source == "own" else rows
    run = begin_run(recipe, rows, reuse=True)
    if run.finished:
        return run
    run.undo_after(0)
    policy = load_policy(recipe)
    base = evaluate_tests(run, "before", policy, tests, recipe)
    attach_lora(policy, recipe)
    sft(policy, solution_examples(rows, recipe.layout), recipe, run.folder, [Recorder(run)])
    judge = recipe.judge(validation.column_names)
    graded = evaluate(policy, validation, judge, recipe.greedy, BATCH, title="validation")
    run.write_validation(steps, as_records(graded))
    print(run.name, summarize(graded))
    print(finish(run, policy, tests, recipe, base))
    return run


def start(model: str, source: str) -> Run:
    return fine_tune("sft", model, source, steps=24, seed=1)


def grpo(model: str, source: str) -> None:
    parent = start(model, source).name
    settings = SPLITS | {"validation_problems": 200, "eval_every": 20, "max_steps": STEPS}
    settings |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8}  # 8 x 8 at a time
    name = f"gsm8k-grpo-{source}"
    train(load_recipe(RECIPE, model_name=model, dataset=gsm8k(), start_from=parent, name=name, **settings))


def more(model: str, source: str) -> None:
    parent = start(model, source).name
    fine_tune("more-sft", model, source, steps=STEPS, seed=2, start_from=parent)


def keep(*folders: str) -> None:
    """Copy recipe and history of runs without paths of this machine, and their validation answers."""
    for run in map(Run, folders):
        kept = STARTS / run.recipe["name"]
        kept.mkdir(parents=True, exist_ok=True)
        keep_recipe(run, kept)
        shutil.copy(run.folder / "history.jsonl", kept)
        for step in run.validation_steps():
            with gzip.GzipFile(kept / f"validation-{step}.jsonl.gz", "wb", mtime=0) as file:
                for answer in run.validation(step):
                    file.write((json.dumps({key: answer[key] for key in KEPT}) + "\n").encode())


def score() -> None:
    """Print strict and lenient accuracy of each kept validation, and compare it with the SFT start's."""
    first = read_validation("gsm8k-sft-solutions", 24)
    for folder in sorted(STARTS.iterdir()):
        for path in sorted(folder.glob("validation-*.jsonl.gz")):
            step = int(path.name.split("-")[1].split(".")[0])
            answers = read_validation(folder.name, step)
            strict, lenient = (fmean(getattr(a, rate) for a in answers) for rate in ("strict", "lenient"))
            said = f"strict {strict:.1%}, lenient {lenient:.1%} of {len(answers)} problems"
            print(f"{folder.name}, step {step}: {said}")
            print("  beside SFT on solutions:", compare(first[: len(answers)], answers))
    tested = [path.parent.name for path in sorted(STARTS.glob("*/test.jsonl.gz"))]
    answers = {name: read_answers(f"starts/{name}/test") for name in tested}
    for name, graded in answers.items():
        print(f"{name}, test problems: {summarize(graded)}")
    for first, second in combinations(answers, 2):
        print(f"test problems, {first} -> {second}: {compare(answers[first], answers[second])}")


if __name__ == "__main__":
    commands = {"own": own, "sft": start, "grpo": grpo, "more": more, "keep": keep, "score": score}
    run_main(lambda command="", *words: commands.get(command, lambda *_: print(__doc__))(*words))
