"""Figures of a run: pure functions from a run folder to a matplotlib Figure (no pyplot)."""

import io
import textwrap
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from r1nb.rewards.grading import summarize_samples
from r1nb.rewards.registry import short_name
from r1nb.runs.evaluations import MOMENTS
from r1nb.views.progress import planned_steps, progress, short, steps_to_show
from r1nb.views.tables import DASH, differences

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY, BLACK = "#56B4E9", "#000000"
RATES = {"strict": (BLUE, "-", "o"), "lenient": (ORANGE, "--", "s"), "format": (GREEN, ":", "^")}
MARKERS = "osv^DPX*"  # shapes of points, one for each run or seed
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), "-", "--")
REWARD_STYLES = list(zip((BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK), LINES, strict=True))
PANELS = {  # key in the history: (title of the panel, whether the values are shares)
    "reward": ("Total reward", False),
    "validation/strict": ("Strict accuracy, validation problems", True),
    "completions/mean_length": ("Completion length, tokens", False),
    "completions/clipped_ratio": ("Completions cut off", True),
    "frac_reward_zero_std": ("Groups without variance", True),
    "entropy": ("Entropy, nats a token", False),
    "kl": ("KL to the reference, nats a token", False),  # only if there is a KL term
}


def training_curves(*runs, smoothing: float = 0.0) -> Figure:
    """Plot the history of a run, one panel for each quantity; several runs are drawn into the same panels.

    The x axis ends at the run's last planned step. For several runs it ends where the longest one ends; one
    that has stopped counts with the steps it trained. The legend says in which settings they differ.
    `smoothing` is the weight, 0 to 1, of the earlier values in an exponential moving average.
    """
    figure = new_figure(11, 7.4)
    above, below = figure.subfigures(2, 1, height_ratios=(2.1, 1))
    keys = [key for key in PANELS if key != "kl" or any(run.series("kl")[0] for run in runs)]
    names = list(dict.fromkeys(name for run in runs for name in run.reward_weights))
    panels = {key: above.add_subplot(2, -(-len(keys) // 2), at) for at, key in enumerate(keys, 1)}
    rewards = {name: below.add_subplot(1, len(names), at) for at, name in enumerate(names, 1)}
    every = panels | {f"rewards/{name}/mean": axes for name, axes in rewards.items()}
    for run, (color, line) in zip(runs, cycle(REWARD_STYLES), strict=False):
        for key, axes in every.items():
            if key == "validation/strict" and len(runs) == 1:
                draw_validation(axes, run)
            else:
                draw_series(axes, run, key, smoothing, color, line, mark_end=len(runs) > 1)
    total = panels["reward"]
    if len(runs) == 1:
        draw_spread(total, runs[0])
        above.suptitle(f"{runs[0].name}: {progress(runs[0])[1]}", fontsize=10, parse_math=False)
    else:
        draw_names(figure, runs)
    draw_limit(total, {run.best_total() for run in runs} - {None}, "best possible")
    for name, axes in rewards.items():
        plain(axes, short_name(name))
        draw_limit(axes, {run.ranges[name][1] for run in runs if name in run.ranges}, "maximum")
    for key, axes in panels.items():
        title, share = PANELS[key]
        plain(axes, axes.get_title() or title, percent=share)
        if key != "reward":
            axes.set_ylim((-0.02, 1.04) if share else (0, None))
    last = last_shown(runs)
    for axes in every.values():
        over_steps(axes, last)
    below.supxlabel("optimizer step", fontsize=9)
    return figure


def last_shown(runs) -> int:
    """The last step of the x axis; see training_curves."""
    ends = [planned_steps(runs[0])] if len(runs) == 1 else map(steps_to_show, runs)
    return max([1, *ends, *(line["step"] for run in runs for line in run.history())])


def draw_names(figure, runs) -> None:
    """Draw a legend above all panels: each run's line, name, differing settings and progress."""
    lines, words = [], []
    for run, said, (color, line) in zip(runs, told_apart(runs), cycle(REWARD_STYLES), strict=False):
        lines.append(Line2D([], [], color=color, linestyle=line, marker="o", markersize=4))
        whole = f"{run.name}{f' ({said})' * bool(said)}: {progress(run)[1]}"
        words.append(textwrap.fill(whole, 130, subsequent_indent="    "))
    legend = figure.legend(lines, words, loc="outside upper left", fontsize=9, frameon=False, handlelength=4)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold dollar signs
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.2 * len("\n".join(words).splitlines()))


def told_apart(runs, most: int = 3) -> list[str]:
    """For each run its values of the settings in which the runs differ: "seed 2, r 8 and 4 more".

    At most `most` settings are named, those of the model, the data and GRPO first.
    """
    order = ("model", "data", "grpo", "rewards", "lora", "sft")
    rank = {section: number for number, section in enumerate(order)}
    differ = sorted(differences(runs).items(), key=lambda pair: rank.get(pair[0].split(".")[0], len(rank)))
    more = f" and {len(differ) - most} more" if len(differ) > most else ""
    said = []
    for number in range(len(runs)):
        values = [(_short_key(key), values[number]) for key, values in differ[:most]]
        words = [f"no {key}" if value == DASH else f"{key} {short(value, 24)}" for key, value in values]
        said.append(", ".join(words) + more)
    return said


def _short_key(key: str) -> str:
    """A setting as a caller names it: without its section, except for sft; rewards without _reward_func."""
    section, _, name = key.partition(".")
    if section == "rewards":
        return short(short_name(name), 30)
    return key if section == "sft" or not name else name


def draw_series(axes, run, key: str, smoothing: float, color, linestyle, mark_end: bool) -> None:
    steps, values = run.series(key)
    validated = key.startswith("validation")
    if smoothing and values and not validated:
        import pandas

        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        values = pandas.Series(values).ewm(alpha=1 - smoothing).mean()
    axes.plot(steps, values, color=color, linestyle=linestyle, linewidth=1.4,
              marker="o" if validated or mark_end else None, markersize=4,
              markevery=None if validated or not steps else [-1])  # fmt: skip


def draw_spread(axes, run) -> None:
    """Draw a band of one standard deviation around the mean reward, and mark the steps with alarms."""
    lines = [line for line in run.history() if None not in (line.get("reward"), line.get("reward_std"))]
    if not lines:
        return
    low, high = ([h["reward"] + sign * h["reward_std"] for h in lines] for sign in (-1, 1))
    steps = [line["step"] for line in lines]
    axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0, label="± deviation")
    axes.lines[0].set_label("mean of the batch")
    if warned := [line["step"] for line in run.alarms()]:
        axes.plot(warned, [0] * len(warned), "^", color=VERMILION, label="alarm", clip_on=False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, 0.86))  # below the limit


def draw_limit(axes, highs: set[float | None], what: str) -> None:
    """Draw a line at the maximum if all runs have the same; start the axis at 0 or at the lowest value."""
    drawn = [value for line in axes.lines for value in line.get_ydata() if value == value]  # no NaN
    low, known = min([0.0, *drawn]), highs - {None}
    high = max(known or drawn, default=0) or 0.1  # the maximum of a penalty is 0
    axes.set_ylim(low, high + 0.15 * (high - low))
    if len(highs) == len(known) == 1:
        axes.axhline(*highs, color="grey", linewidth=0.8, linestyle="--")
        axes.text(0, *highs, f" {what}", va="bottom", fontsize=7, color="dimgrey")


def draw_validation(axes, run, alpha: float = 1.0, labels: bool = True) -> None:
    """Draw strict, lenient and format rate on the validation rows into one panel."""
    counts = run.series("validation/n")[1]
    if not counts:
        return
    for rate, (color, line, marker) in RATES.items():
        steps, values = run.series(f"validation/{rate}")
        axes.plot(steps, values, color=color, linestyle=line, marker=marker, markersize=4,
                  alpha=alpha, label=rate if labels else None, clip_on=False)  # fmt: skip
    axes.set_ylim(0, 1.02)
    title = f"{int(counts[0])} validation problems, greedy"
    plain(axes, title, percent=True, legend="best" if labels else "")


def pass_curves(run) -> Figure:
    """Plot pass@k before and after training on the problems that were sampled, with 95 % intervals."""
    figure = new_figure(6, 3.2)
    axes = figure.subplots()
    for (moment, shown), (color, line) in zip(MOMENTS.items(), REWARD_STYLES, strict=False):
        for split, groups in run.samples(moment).items():
            summary = summarize_samples(groups)
            if not summary["problems"]:  # no problem was judged
                continue
            ks = [int(k) for k in summary["pass"]]
            value, low, high = zip(*summary["pass"].values(), strict=True)
            axes.plot(ks, value, color=color, linestyle=line, marker="o", markersize=4, label=shown)
            axes.fill_between(ks, low, high, color=color, alpha=0.12, linewidth=0)
            axes.set_xscale("log", base=2)
            axes.set_xticks(ks, [str(k) for k in ks])
            plain(axes, f"{summary['problems']} problems of {split}, {summary['samples']} samples each")
    axes.set(ylim=(0, 1.02), xlabel="k samples", ylabel="pass@k: at least one is right")
    plain(axes, percent=True, legend="lower right" if axes.lines else "")
    return figure


def length_histogram(lengths: dict[str, list[int]], limit: int) -> Figure:
    """A histogram of prompt lengths in tokens for each dataset; rows above the marked limit are dropped."""
    figure = new_figure(8, 3)
    axes = figure.subplots()
    longest = max(limit, *(max(values) for values in lengths.values()))
    bins = range(0, longest + 8, max(2, longest // 60))
    for (name, values), (color, line) in zip(lengths.items(), cycle(REWARD_STYLES), strict=False):
        shares = [1 / len(values)] * len(values)
        axes.hist(values, bins, weights=shares, histtype="step", color=color, linestyle=line, label=name)
    axes.axvline(limit, color="grey", linewidth=0.8, linestyle="--")
    top = axes.get_ylim()[1]
    axes.text(limit, top, "max_prompt_length ", ha="right", va="top", fontsize=8, color="dimgrey")
    axes.set(xlabel="tokens of the prompt", ylabel="share of rows")
    plain(axes, percent=True, legend="best")
    over_steps(axes, longest + 8)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; the size is in inches, and the background is white in dark themes, too."""
    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def as_percent(axis) -> None:
    axis.set_major_formatter(PercentFormatter(1))


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(axes, title: str = "", percent: bool = False, legend: str = "") -> None:
    """Style axes like all figures of r1nb: no top and right frame, small labels; `legend` is its location."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if title:
        axes.set_title(title, fontsize=10)
    if percent:
        as_percent(axes.yaxis)
    if legend:
        axes.legend(fontsize=8, frameon=False, loc=legend)


def over_steps(axes, last: int) -> None:
    """Make the x axis run from 0 to `last`, with ticks at whole numbers."""
    plain(axes)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
