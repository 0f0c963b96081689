"""A 0.5B model on GSM8K: its answers to all 1,319 test problems before and after GRPO, kept in data/results.

Each file NAME.jsonl.gz has a line for each problem: its `index` in test.jsonl, `question` and gold `answer`,
the greedy `completion`, its length in `tokens`, whether it was `cut` off, and whether it is right (`strict`).
"""

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate
from r1nb.evaluation.comparison import compare
from r1nb.paths import DATA, read_json, write_json
from r1nb.policy.policy import Completion
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded, grade, summarize
from r1nb.text.statistics import mean_interval
from r1nb.views.plots import BLUE, SKY, Figure, new_figure, plain
from r1nb.views.tables import table_of

FOLDER = DATA / "results" / "gsm8k-qwen25-coder-0.5b"
STARTS = FOLDER / "starts"  # the runs of data/make_gsm8k_start.py
RECIPE = "qwen25-0.5b-cpu"
SHOWN = ("strict", "lenient", "format")
COLORS = ("#bbbbbb", SKY, BLUE)
MEANING = {
    "format": "right before, but not in an answer block; less what is still so afterwards",
    "time": "gain in lenient accuracy on problems whose answer was cut off before",
    "reasoning": "gain in lenient accuracy on the other problems",
    "in all": "strict accuracy after minus before",
}
POLICIES = {"raw": "as it comes", "start": "before GRPO", "after": "after GRPO"}


def read_answers(name: str) -> list[Graded]:
    """The answers of a file, judged anew; raises UserError if a verdict differs from the one in the file."""
    path = FOLDER / f"{name}.jsonl.gz"
    if not path.is_file():
        raise UserError(f"{path.name} is missing in {FOLDER.name}: data/make_gsm8k.py makes it.")
    lines = _lines(path)
    texts = [Completion(line["completion"], (0,) * line["tokens"], line["cut"]) for line in lines]
    rows = {column: [line[column] for line in lines] for column in ("question", "answer")}
    graded = grade(rows, texts, load_recipe(RECIPE).judge())
    for line, g in zip(lines, graded, strict=True):
        if line["strict"] != g.strict:
            raise UserError(f"{path.name}: problem {line['index']} is judged otherwise now.")
    return graded


def keep_answers(policy, rows, recipe, file: Path, time_is_up=lambda: False) -> list[Graded]:
    """Answer all rows greedily, and keep each batch in a JSON file at once; a second call goes on from there.

    Returns the graded answers in the order of the rows; only those so far if `time_is_up()` after a batch.
    """
    judge, questions = recipe.judge(rows.column_names), dict(enumerate(rows["question"]))
    kept = read_json(file, {}, dict[int, Graded])
    kept = {i: g for i, g in kept.items() if g.question == questions.get(i)}  # other data may be under it
    order = sorted(questions, key=lambda i: len(questions[i]))
    todo, batch = [i for i in order if i not in kept], recipe.evaluation.eval_batch_size
    for start in range(0, len(todo), batch):
        places = todo[start : start + batch]
        graded = evaluate(policy, rows.select(places), judge, recipe.greedy, batch)
        kept |= zip(places, graded, strict=True)
        write_json(file, {i: asdict(g) for i, g in kept.items()})
        print(f"{file.stem}: {len(kept)} of {len(rows)}", flush=True)
        if time_is_up():
            break
    return [kept[i] for i in sorted(kept)]


def read_validation(run: str, step: int) -> list[SimpleNamespace]:
    """The kept answers of a run to validation problems after a step, with what was judged then."""
    return [SimpleNamespace(**line) for line in _lines(STARTS / run / f"validation-{step}.jsonl.gz")]


def _lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def compare_rates(first: list[Graded], second: list[Graded]) -> dict:
    """{"strict" and "lenient": the Comparison of two policies}."""
    return {rate: compare(first, second, rate) for rate in ("strict", "lenient")}


def gain_parts(before: list[Graded], after: list[Graded]) -> dict[str, list[float]]:
    """Split the gain in strict accuracy into the parts of MEANING, which add up: {part: [mean, low, high]}.

    Each mean is over all problems, with its 95 % bootstrap interval.
    """
    pairs = list(zip(before, after, strict=True))
    parts = {
        "format": [(a.lenient - a.strict) - (b.lenient - b.strict) for a, b in pairs],
        "time": [(b.lenient - a.lenient) * a.cut for a, b in pairs],
        "reasoning": [(b.lenient - a.lenient) * (not a.cut) for a, b in pairs],
        "in all": [b.strict - a.strict for a, b in pairs],
    }
    return {name: [fmean(part), *mean_interval(part)] for name, part in parts.items()}


def draw_rates(graded: dict[str, list[Graded]]) -> Figure:
    """Strict, lenient and format rate of each policy, with 95 % intervals; {name in POLICIES: answers}."""
    figure = new_figure(6.4, 3.0)
    axes = figure.add_subplot()
    for i, (name, answers) in enumerate(graded.items()):
        summary = summarize(answers)
        values = [summary[rate] for rate in SHOWN]
        lows, highs = zip(*(summary[f"{rate}_interval"] for rate in SHOWN), strict=True)
        places = [j + 0.8 * (i + 0.5) / len(graded) - 0.4 for j in range(len(SHOWN))]
        errors = [[v - low for v, low in zip(values, lows, strict=True)],
                  [high - v for v, high in zip(values, highs, strict=True)]]  # fmt: skip
        axes.bar(
            places, values, 0.76 / len(graded), yerr=errors, capsize=3, color=COLORS[i], label=POLICIES[name]
        )
        for place, value, high in zip(places, values, highs, strict=True):
            axes.text(place, high + 0.01, f"{value:.1%}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(SHOWN)), SHOWN)
    plain(axes, f"{len(answers):,} test problems of GSM8K, greedy", percent=True, legend="upper left")
    return figure


def parts_table(before: list[Graded], after: list[Graded]):
    """The parts of the gain in strict accuracy, in points."""
    rows = []
    for part, (mean, low, high) in gain_parts(before, after).items():
        points = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        rows.append([part, points, MEANING[part]])
    return table_of(rows, ["part", "points of strict accuracy", "meaning"])
