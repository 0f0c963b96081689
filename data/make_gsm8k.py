"""Answer GSM8K's 1,319 test problems with a small instruct model, before and after GRPO, and score them.

    python data/make_gsm8k.py answer raw MODEL                 # the model as it comes: a GGUF file, ...
    python data/make_gsm8k.py answer after MODEL RUN           # with the adapter of a run, or a checkpoint
    python data/make_gsm8k.py score                            # the table, from the files alone

Each answer is greedy and given once. The files are data/results/gsm8k-qwen25-coder-0.5b/NAME.jsonl.gz, a line
for each problem: its index in test.jsonl, the completion, whether it is right (strict). An interrupted run of
`answer` goes on where it stopped. The environment variable R1NB_GSM8K_DIR names the folder with test.jsonl.
"""

import csv
import gzip
import json
import os
import time
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.evaluation.accuracy import evaluate
from r1nb.evaluation.comparison import compare
from r1nb.paths import DATA
from r1nb.policy.loading import load_policy
from r1nb.policy.policy import Completion
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import grade, summarize
from r1nb.runs.checkpoints import last_checkpoint
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_rows

FOLDER = DATA / "results" / "gsm8k-qwen25-coder-0.5b"
BATCH = 200  # problems that are answered together


def rows_of_test():
    if not (folder := os.environ.get("R1NB_GSM8K_DIR")):
        raise UserError("R1NB_GSM8K_DIR is not set: name the folder that holds GSM8K's test.jsonl.")
    return load_rows(folder, "test")


def answer(name: str, model: str, trained: str = "") -> None:
    """Answer all test problems; `trained` is a run, finished or not, or the folder of an adapter."""
    rows, begin = rows_of_test(), time.perf_counter()
    recipe = load_recipe("qwen25-0.5b-cpu", model_name=model)
    policy = load_policy(recipe)
    if trained:
        folder = Path(trained)
        if (folder / "recipe.yaml").is_file():
            run = Run(folder)
            folder = run.adapter if run.finished else last_checkpoint(run)[1]
        policy.load_adapter(folder)
    FOLDER.mkdir(exist_ok=True)
    partial = FOLDER / f"{name}.jsonl"
    done = partial.read_text(encoding="utf-8").splitlines() if partial.is_file() else []
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["question"]))
    todo = [i for i in order if i not in {json.loads(line)["index"] for line in done}]
    for start in range(0, len(todo), BATCH):
        places = todo[start : start + BATCH]
        graded = evaluate(policy, rows.select(places), recipe.judge(), recipe.greedy, BATCH)
        with partial.open("a", encoding="utf-8") as file:
            for i, g in zip(places, graded, strict=True):
                line = {"index": i, "completion": g.completion, "strict": g.strict, "tokens": len(g.ids)}
                file.write(json.dumps(line | {"cut": g.cut}) + "\n")
        print(f"{start + len(places)} of {len(todo)}, {time.perf_counter() - begin:.0f} s", flush=True)
    lines = sorted(partial.read_text(encoding="utf-8").splitlines(), key=lambda x: json.loads(x)["index"])
    with gzip.GzipFile(FOLDER / f"{name}.jsonl.gz", "wb", mtime=0) as file:
        file.write("\n".join([*lines, ""]).encode())
    partial.unlink()


def read(name: str, rows) -> list:
    """The graded answers of one file, judged again; raises UserError if `strict` differs in a line."""
    with gzip.open(FOLDER / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    if [line["index"] for line in lines] != list(range(len(rows))):
        raise UserError(f"{name}.jsonl.gz has not one line for each of {len(rows)} problems, in order.")
    texts = [Completion(line["completion"], (0,) * line["tokens"], line["cut"]) for line in lines]
    graded = grade(rows[:], texts, load_recipe("qwen25-0.5b-cpu").judge())
    if unlike := [line["index"] for line, g in zip(lines, graded, strict=True) if line["strict"] != g.strict]:
        raise UserError(f"{name}.jsonl.gz: problem {unlike[0]} is judged otherwise now.")
    return graded


def score() -> None:
    """Print and write the rates of each file, and compare the first with the others."""
    rows, graded = rows_of_test(), {}
    for name in ("raw", "start", "after"):
        if (FOLDER / f"{name}.jsonl.gz").is_file():
            graded[name] = read(name, rows)
    table = [["policy", "strict", "low", "high", "lenient", "low", "high", "format", "cut", "tokens"]]
    for name, found in graded.items():
        s = summarize(found)
        rates = [s["strict"], *s["strict_interval"], s["lenient"], *s["lenient_interval"], s["format"]]
        table.append([name, *(f"{rate:.4f}" for rate in [*rates, s["cut"]]), f"{s['tokens']:.1f}"])
        print(*table[-1])
    with (FOLDER / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    first, *others = graded
    for name in others:
        print(f"{first} -> {name}, strict:", compare(graded[first], graded[name]))


if __name__ == "__main__":
    commands = {"answer": answer, "score": score}
    run_main(lambda command="", *words: commands.get(command, lambda *_: print(__doc__))(*words))
