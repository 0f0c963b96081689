"""Turn finished runs into what the README shows: two CSV files and one picture in data/results.

for seed in 11 12 13; do R1NB_SET="seed=$seed" make train; done
python data/make_results.py runs/tiny-cpu-001 runs/tiny-cpu-002 runs/tiny-cpu-003
"""

import csv
import sys
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from r1nb.evaluation.reflection import count_checks
from r1nb.recipes.loading import load_recipe
from r1nb.runs.evaluations import MOMENTS
from r1nb.runs.run import Run
from r1nb.views.plots import draw_validation
from r1nb.views.tables import rate_cell

RESULTS = Path(__file__).parent / "results"


def write_curves(runs: list[Run], path: Path) -> None:
    """A row for each seed and step: reward, validation rates, length, checks."""
    names = ("reward", "reward_std", "validation/strict", "validation/lenient", "validation/format",
             "completions/mean_length", "completions/clipped_ratio")  # fmt: skip
    counted = ("with_check", "corrected", "spoiled")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "step", *names, *counted])
        for run in runs:
            series = {name: dict(zip(*run.series(name), strict=True)) for name in names}
            log = run.completions().groupby("step")["completion"]
            checks = {step: count_checks(list(texts)) for step, texts in log}
            for step in sorted({step for values in series.values() for step in values}):
                values = [series[name].get(step) for name in names]
                cells = ["" if value is None else f"{value:.4g}" for value in values]
                counts = [checks[step][key] if step in checks else "" for key in counted]
                writer.writerow([load_recipe(run).grpo["seed"], step, *cells, *counts])


def write_evaluation(runs: list[Run], path: Path) -> None:
    """A row for each seed, test split and moment: rates with intervals, rewards."""
    rewards, rates = list(runs[0].reward_weights), ("strict", "lenient", "format")
    columns = [c for rate in rates for c in (rate, f"{rate}_low", f"{rate}_high")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "train_seconds", "split", "stage", "n", *columns, "tokens", *rewards])
        for run in runs:
            seed, seconds = load_recipe(run).grpo["seed"], round(run.series("time")[1][-1])
            for split, moments in run.evaluation().items():
                for moment in MOMENTS:
                    summary = moments[moment]
                    cells = [c for r in rates for c in (summary[r], *summary[f"{r}_interval"])]
                    cells += [summary["tokens"], *(summary["rewards"][name] for name in rewards)]
                    facts = [seed, seconds, split, moment, summary["n"]]
                    writer.writerow([*facts, *(f"{c:.6f}" for c in cells)])


def table(runs: list[Run]) -> str:
    """The accuracy table of the README, in Markdown; before training all seeds are the same."""
    first, *_ = runs
    rows = [("before", first, "before"), ("before, prefilled", first, "prefilled")]
    rows += [(f"**after**, seed {load_recipe(run).grpo['seed']}", run, "after") for run in runs]
    splits = {split: moments["before"]["n"] for split, moments in first.evaluation().items()}
    columns = [(split, rate) for split in splits for rate in ("strict", "lenient", "format")]
    names = " | ".join(f"{split} ({splits[split]}): {rate}" for split, rate in columns)
    lines = [f"| | {names} |", "|---" * (len(columns) + 1) + "|"]
    for name, run, moment in rows:
        cells = [rate_cell(run.evaluation()[split][moment], rate) for split, rate in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_hero(runs: list[Run], problem: int, path: Path) -> None:
    """Held-out rates over steps, every seed; one problem's answers at start, middle and end."""
    figure = Figure(figsize=(10, 6.2), dpi=110, facecolor="white")
    top = figure.add_axes((0.07, 0.52, 0.9, 0.40))
    for number, run in enumerate(runs):
        draw_validation(top, run, alpha=0.75, labels=number == 0)
    n = int(runs[0].series("validation/n")[1][0])
    top.set_title(f"GRPO on two CPU cores: {n} validation problems, greedy, {len(runs)} seeds", fontsize=12)
    top.set_xlabel("optimizer step (64 completions each)", fontsize=9)
    top.set_xlim(0, runs[0].series("validation/strict")[0][-1])
    top.spines[["top", "right"]].set_visible(False)
    run = runs[0]
    validated = run.validated()
    answers = [run.validation(step)[problem] for step in validated]
    question = textwrap.fill(f"Held-out problem: {answers[0]['question']}", 120)
    figure.text(0.07, 0.425, question, fontsize=9.5, va="top", wrap=True)
    for column, (step, answer) in enumerate(zip(validated, answers, strict=True)):
        left = 0.07 + column * 0.31
        right = "right" if answer["strict"] else "right number, no format" if answer["lenient"] else "wrong"
        figure.text(left, 0.355, f"after step {step}: {right}", fontsize=9.5, weight="bold", va="top")
        lines = [textwrap.fill(line, 42) for line in answer["completion"].splitlines()]
        figure.text(left, 0.315, "\n".join(lines), fontsize=8.5, family="monospace", va="top",
                    parse_math=False)  # fmt: skip
    figure.savefig(path)


def telling_problem(run: Run) -> int:
    """The first validation problem that was wrong before and right, in three steps or more, after."""
    validated = [run.validation(step) for step in run.validated()]
    for number, (first, *_, last) in enumerate(zip(*validated, strict=True)):
        if not first["lenient"] and last["strict"] and last["completion"].count("=") >= 3:
            return number
    return 0


def main(folders: list[str]) -> None:
    runs = [Run(folder) for folder in folders]
    RESULTS.mkdir(exist_ok=True)
    name = load_recipe(runs[0]).name
    write_curves(runs, RESULTS / f"{name}-curves.csv")
    write_evaluation(runs, RESULTS / f"{name}-evaluation.csv")
    if len(runs) > 1:
        draw_hero(runs, telling_problem(runs[0]), RESULTS / "hero.png")
    print(table(runs))


if __name__ == "__main__":
    main(sys.argv[1:])
