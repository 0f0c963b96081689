"""Make the tables and the figure of the README from finished runs, in data/results.

python data/make_results.py RUN                           # one run: two CSV files; prints its table
python data/make_results.py RUNS_DIR/default/shipped-*    # the seeds of default.yaml: hero.png
"""

import csv
import sys
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from r1nb.evaluation.reflection import count_checks
from r1nb.recipes.loading import load_recipe
from r1nb.runs.evaluations import MOMENTS
from r1nb.runs.run import Run
from r1nb.views.plots import BLUE, ORANGE
from r1nb.views.tables import rate_cell

RESULTS = Path(__file__).parent / "results"


def write_curves(runs: list[Run], path: Path) -> None:
    """Write a row for each seed and step: reward, validation rates, length, checks."""
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
    """Write a row for each seed, test split and moment: rates with intervals, rewards."""
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
    """The README's accuracy table in Markdown; before training the results of all seeds are the same."""
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


def draw_hero(runs: list[Run], path: Path) -> None:
    """Plot strict accuracy over steps, one line per seed, beside one problem's answers in three steps."""
    figure = Figure(figsize=(11, 5.2), dpi=110, facecolor="white")
    axes = figure.add_axes((0.06, 0.11, 0.5, 0.75))
    seeds = [load_recipe(run).grpo["seed"] for run in runs]
    ends = [run.series("validation/strict")[1][-1] for run in runs]
    worst = ends.index(min(ends))
    for run in [*runs[:worst], *runs[worst + 1 :], runs[worst]]:  # the worst is drawn above the others
        color, width = (ORANGE, 2) if run is runs[worst] else (BLUE, 1)
        line = {"color": color, "linewidth": width, "marker": "o", "markersize": 3, "clip_on": False}
        axes.plot(*run.series("validation/strict"), **line)
    n, steps = int(runs[0].series("validation/n")[1][0]), runs[0].series("validation/strict")[0]
    axes.set_title("A tiny language model learns to solve word problems by trial and\n"
                   f"error: {len(runs)} runs of GRPO on a CPU", fontsize=11, loc="left")  # fmt: skip
    axes.set(xlim=(0, steps[-1]), ylim=(0, 1))
    axes.set_xlabel(f"training step ({load_recipe(runs[0]).batch_size} answers tried in each)", fontsize=9)
    axes.set_ylabel(f"right answers to {n} problems it does not train on", fontsize=9)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    said = f"seeds {seeds[0]} to {seeds[-1]}: blue; the worst at its end, seed {seeds[worst]}: orange"
    axes.text(0.98, 0.04, said, transform=axes.transAxes, fontsize=8, ha="right")
    run = runs[0]
    problem, shown = telling_problem(run)
    answers = [run.validation(step)[problem] for step in shown]
    text = {"fontsize": 9, "va": "top", "parse_math": False}
    lines = textwrap.wrap(f"One of these problems: {answers[0]['question']}", 62)
    top, left = 0.955, 0.6
    figure.text(left, top, "\n".join(lines), **text)
    top -= 0.032 * len(lines) + 0.035
    for step, answer in zip(shown, answers, strict=True):
        right = "right" if answer["strict"] else "right number, no format" if answer["lenient"] else "wrong"
        before = "before training" if not step else f"after step {step}"
        figure.text(left, top, f"{before}: {right}", weight="bold", **text)
        lines = [part for line in answer["completion"].splitlines() for part in textwrap.wrap(line, 52)]
        figure.text(left, top - 0.038, "\n".join(lines), family="monospace", **text | {"fontsize": 8.5})
        top -= 0.03 * len(lines) + 0.085
    figure.savefig(path)


def telling_problem(run: Run) -> tuple[int, list[int]]:
    """(number, steps) of a validation problem whose answer was wrong before training, well-formed but wrong
    during training, and right with at least three equations at the end; if there is none, of the first.
    """
    steps = run.validated()
    validated = [run.validation(step) for step in steps]
    for number, (first, *between, last) in enumerate(zip(*validated, strict=True)):
        if not first["lenient"] and last["strict"] and last["completion"].count("=") >= 3:
            wrong = [s for s, a in zip(steps[1:], between, strict=False) if a["format"] and not a["lenient"]]
            if wrong:
                return number, [steps[0], wrong[-1], steps[-1]]
    return 0, [steps[0], steps[len(steps) // 2], steps[-1]]


def main(folders: list[str]) -> None:
    runs = [Run(folder) for folder in folders]
    if len(runs) > 1:
        draw_hero(runs, RESULTS / "hero.png")
        return
    name = load_recipe(runs[0]).name
    write_curves(runs, RESULTS / f"{name}-curves.csv")
    write_evaluation(runs, RESULTS / f"{name}-evaluation.csv")
    print(table(runs))


if __name__ == "__main__":
    main(sys.argv[1:])
