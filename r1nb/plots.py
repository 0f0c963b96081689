"""Figures of a run: pure functions from a run folder to a matplotlib Figure (no pyplot)."""

import io
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from r1nb.evaluation import count_checks
from r1nb.rewards import REWARDS, best_total, short_name

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY, BLACK = "#56B4E9", "#000000"
RATES = {"strict": (BLUE, "-", "o"), "lenient": (ORANGE, "--", "s"), "format": (GREEN, ":", "^")}
REWARD_STYLES = [
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (VERMILION, ":"),
    (PURPLE, (0, (3, 1, 1, 1, 1, 1))),
    (SKY, "-"),
    (BLACK, "--"),
]


def training_curves(run) -> Figure:
    """Total reward with its spread, each reward as a share of its maximum, held-out rates."""
    figure = Figure(figsize=(11, 3.4), dpi=100, layout="constrained", facecolor="white")
    total, each, held_out = figure.subplots(1, 3)
    _draw_total(total, run)
    _draw_each_reward(each, run)
    draw_held_out(held_out, run)
    steps = run.series("reward")[0]
    for axes in (total, each, held_out):
        axes.set_xlabel("optimizer step")
        axes.set_xlim(0, max(steps[-1], 1))
        _plain(axes)
    return figure


def _draw_total(axes, run) -> None:
    steps, reward = run.series("reward")
    _, spread = run.series("reward_std")
    low = [r - s for r, s in zip(reward, spread, strict=True)]
    high = [r + s for r, s in zip(reward, spread, strict=True)]
    axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0, label="± deviation")
    axes.plot(steps, reward, color=BLUE, label="mean of the batch")
    best = best_total(run.weights())
    axes.axhline(best, color="grey", linewidth=0.8, linestyle="--")
    axes.text(0, best, " best possible", va="bottom", fontsize=8, color="dimgrey")
    axes.set_ylim(min([0, *low]), best * 1.12)
    axes.set_title("Total reward", fontsize=10)
    axes.legend(fontsize=8, loc="lower right", frameon=False)


def _draw_each_reward(axes, run) -> None:
    for name, (color, line) in zip(run.weights(), cycle(REWARD_STYLES), strict=False):
        steps, mean = run.series(f"rewards/{name}/mean")
        best = REWARDS[name].high or 1.0  # a penalty's best is 0: it is drawn as it is
        share = [value / best for value in mean]
        axes.plot(steps, share, color=color, linestyle=line, linewidth=1.5, label=short_name(name))
    lowest = min(REWARDS[name].low for name in run.weights())
    axes.set_ylim(max(-1.0, lowest), 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("Each reward, share of its maximum", fontsize=10)
    axes.legend(fontsize=8, loc="lower right", frameon=False)


def draw_held_out(axes, run, alpha: float = 1.0, labels: bool = True) -> None:
    """Strict, lenient and format rate on the validation slice, on one axis."""
    for rate, (color, line, marker) in RATES.items():
        steps, values = run.series(f"held_out/{rate}")
        axes.plot(steps, values, color=color, linestyle=line, marker=marker, markersize=4,
                  alpha=alpha, label=rate if labels else None, clip_on=False)  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    n = int(run.series("held_out/n")[1][0]) if run.series("held_out/n")[1] else 0
    axes.set_title(f"{n} held-out problems, greedy", fontsize=10)
    if labels:
        axes.legend(fontsize=8, loc="lower right", frameon=False)


def reasoning_curves(run) -> Figure:
    """Completion length, and how often a step is checked and what the check did, over steps."""
    figure = Figure(figsize=(11, 3.2), dpi=100, layout="constrained", facecolor="white")
    length, checks = figure.subplots(1, 2)
    steps, mean = run.series("completions/mean_length")
    _, cut = run.series("completions/clipped_ratio")
    length.plot(steps, mean, color=BLUE)
    length.set_ylim(0, None)
    length.set_ylabel("tokens")
    length.set_title(f"Mean completion length (cut off: {cut[-1]:.0%} at the end)", fontsize=10)
    groups = run.completions().groupby("step")["completion"]
    counts = {step: count_checks(list(texts)) for step, texts in groups}
    every = max(1, len(counts) // 16)  # steps in one point, so that seldom events can be read
    order = sorted(counts)
    bins = [order[i : i + every] for i in range(0, len(order), every)]
    for key, label, (color, line) in (
        ("with_check", "with a check", REWARD_STYLES[0]),
        ("corrected", "corrected a wrong step", REWARD_STYLES[2]),
        ("spoiled", "spoiled a right step", REWARD_STYLES[3]),
    ):
        shares = [sum(counts[s][key] for s in b) / sum(counts[s]["completions"] for s in b) for b in bins]
        centers = [sum(b) / len(b) for b in bins]
        checks.plot(centers, shares, color=color, linestyle=line, marker="o", markersize=3, label=label)
    checks.set_ylim(0, None)
    checks.yaxis.set_major_formatter(PercentFormatter(1))
    checks.set_title("Share of completions", fontsize=10)
    checks.legend(fontsize=8, frameon=False)
    for axes in (length, checks):
        axes.set_xlabel("optimizer step")
        axes.set_xlim(0, steps[-1])
        _plain(axes)
    return figure


def length_histogram(lengths: dict[str, list[int]], limit: int) -> Figure:
    """How many tokens the prompts of each dataset have, beside the limit that drops the longer ones."""
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    longest = max(limit, *(max(values) for values in lengths.values()))
    bins = range(0, longest + 8, max(2, longest // 60))
    for (name, values), (color, line) in zip(lengths.items(), cycle(REWARD_STYLES), strict=False):
        shares = [1 / len(values)] * len(values)
        axes.hist(values, bins, weights=shares, histtype="step", color=color, linestyle=line, label=name)
    axes.axvline(limit, color="grey", linewidth=0.8, linestyle="--")
    axes.text(
        limit, axes.get_ylim()[1], "max_prompt_length ", ha="right", va="top", fontsize=8, color="dimgrey"
    )
    axes.set_xlim(0, longest + 8)
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("share of rows")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plain(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
