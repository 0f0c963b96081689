"""Compare runs that build on one another: the cost and the accuracy of each, as tables and a figure."""

from r1nb.errors import UserError
from r1nb.paths import read_json
from r1nb.rewards.grading import summarize, summarize_samples
from r1nb.views.plots import BLACK, MARKERS, REWARD_STYLES, Figure, new_figure, plain
from r1nb.views.tables import percent, rate_cell, table_of


def work(run) -> tuple[int, int]:
    """The work of a GRPO or SFT run: (completions sampled, completions or examples trained on)."""
    recipe, processes = run.recipe, run.environment.get("processes", 1)
    grpo, sft = (
        processes
        * recipe[section].get("per_device_train_batch_size", 8)
        * recipe[section].get("gradient_accumulation_steps", 1)
        for section in ("grpo", "sft")
    )
    steps, _ = run.series("loss")
    done, sampled = max(steps, default=0), run.rejection().get("samples", 0)
    if not run.series("reward")[0]:
        return sampled, done * sft
    return sampled + done * grpo // recipe["grpo"].get("num_iterations", 1), done * grpo


def equal_steps(runs, batch: int) -> int:
    """How many GRPO steps cost as much as the runs; a step samples and trains on `batch` completions."""
    return round(sum(sum(work(run)) for run in runs) / (2 * batch))


def rejection_table(run):
    """How many completions rejection sampling kept, and why it dropped the others."""
    counts = run.rejection()
    if not counts:
        why = "its rejection sampling did not finish, or the file is damaged"
        raise UserError(f"{run.label} has no readable rejection.json: {why}.")
    rows = [["sampled", counts["samples"]], *counts["dropped"].items(), ["kept", counts["kept"]]]
    shown = [[name, f"{count:,}", f"{count / counts['samples']:.1%}"] for name, count in rows]
    shown.append(["problems with a kept completion", f"{counts['solved']} of {counts['problems']}", ""])
    return table_of(shown, ["", "completions", "share"])


def examples_table(run, most: int):
    """Up to `most` of the kept completions, with their questions."""
    examples = read_json(run.folder / "examples.json", [], list[dict[str, list[dict[str, str]]]])
    each = max(1, len(examples) // most)
    shown = [[e["prompt"][-1]["content"], e["completion"][0]["content"]] for e in examples[::each][:most]]
    return table_of(shown, ["question", "kept"])


def stages_table(runs: dict, split: str):
    """The parent, the cost and the accuracy on a test split of each run; `runs` is {description: run}."""
    first = next(iter(runs.values()))
    rows = [
        [words, *[""] * 3, *_reached(first, moment, split)]
        for moment, words in (("before", "the base"), ("prefilled", "the base, prefilled"))
    ]
    for words, run in runs.items():
        costs = (f"{count:,}" for count in work(run))
        rows.append(
            [words, run.environment.get("parent", "the base"), *costs, *_reached(run, "after", split)]
        )
    heads = ["", "built on", "sampled", "trained on", "strict", "format", "tokens", "pass@8"]
    return table_of(rows, heads)


def _reached(run, moment: str, split: str) -> list[str]:
    summary = summarize(run.graded(moment)[split])
    samples = run.samples(moment).get(split)
    best = summarize_samples(samples)["pass"].get("8") if samples else None
    return [rate_cell(summary, "strict"), rate_cell(summary, "format"), f"{summary['tokens']:.0f}",
            percent(*best) if best else ""]  # fmt: skip


def draw_stages(runs: dict, alone) -> Figure:
    """Plot strict validation accuracy over the work done, for the stages in turn and for GRPO alone."""
    figure = new_figure(10, 3.8)
    axes, done = figure.subplots(), 0
    for number, (words, run) in enumerate(runs.items()):
        color, _ = REWARD_STYLES[number % len(REWARD_STYLES)]
        end = done + sum(work(run))
        places, rates = _validations(run, done, end)
        axes.plot(places, rates, color=color, marker=MARKERS[number], markersize=5, label=words, zorder=3)
        axes.axvline(end, color="grey", linewidth=0.6, linestyle=":")
        done = end
    places, rates = _validations(alone, 0, sum(work(alone)))
    axes.plot(places, rates, color=BLACK, linestyle="--", marker="s", markersize=3, label="GRPO alone")
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("strict accuracy, validation problems", fontsize=9)
    axes.set_xlabel("completions sampled and trained on (gaps: rejection sampling)", fontsize=9)
    plain(axes, percent=True)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _validations(run, begin: int, end: int) -> tuple[list[float], list[float]]:
    """(work done, strict accuracy) of a run's validations; rejection sampling comes before its first step."""
    steps, rates = run.series("validation/strict")
    start = begin + run.rejection().get("samples", 0)
    return [start + (end - start) * step / max(1, steps[-1]) for step in steps], rates
