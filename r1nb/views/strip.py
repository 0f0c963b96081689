"""The main curves of runs in one low row of panels, which leaves room for completions below."""

from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.text import Text

from r1nb.rewards.registry import short_name
from r1nb.views.plots import (
    BLUE,
    PANELS,
    REWARD_STYLES,
    draw_limit,
    draw_names,
    draw_series,
    draw_spread,
    draw_validation,
    last_shown,
    new_figure,
    over_steps,
    plain,
)

SIZE = 13.0, 2.3  # inches; the legend of several runs comes on top
GREY = "#808080"
COMPARED = ("reward", "validation/strict", "completions/mean_length", "completions/clipped_ratio")


def strip(*runs, smoothing: float = 0.0) -> tuple[Figure, int]:
    """The main curves in one row, and the last step of their x axis.

    For one run: total reward, validation accuracy, each reward as a share of its maximum, length. For
    several: total reward, strict accuracy, length, and the share that was cut off, one line for each run.
    """
    figure = new_figure(*SIZE)
    axes = figure.subplots(1, 4)
    if len(runs) == 1:
        _draw_one(axes, runs[0], smoothing)
    else:
        for run, (color, line) in zip(runs, cycle(REWARD_STYLES), strict=False):
            for panel, key in zip(axes, COMPARED, strict=True):
                draw_series(panel, run, key, smoothing, color, line, mark_end=True)
        for panel, key in zip(axes, COMPARED, strict=True):
            title, share = PANELS[key]
            plain(panel, title.removesuffix(", validation problems"), percent=share)
            panel.set_ylim((-0.02, 1.04) if share else panel.get_ylim())
        draw_names(figure, runs)
    last = last_shown(runs)
    for panel in axes:
        over_steps(panel, last)
    figure.supxlabel("optimizer step", fontsize=8)
    _suit_any_theme(figure)
    return figure, last


def _suit_any_theme(figure) -> None:
    """Grey text and axes on a transparent background can be read on white and on black."""
    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(colors=GREY)
        axes.spines[:].set_color(GREY)
    for text in figure.findobj(Text):
        text.set_color(GREY)


def _draw_one(axes, run, smoothing: float) -> None:
    total, accuracy, rewards, length = axes
    draw_series(total, run, "reward", smoothing, BLUE, "-", mark_end=False)
    draw_spread(total, run)
    draw_limit(total, {run.best_total()} - {None}, "best possible")
    plain(total, "Total reward")
    draw_validation(accuracy, run)
    if not accuracy.get_title():
        plain(accuracy, "Validation accuracy", percent=True)
        accuracy.set_ylim(0, 1.02)
    for name, (color, line) in zip(run.reward_weights, cycle(REWARD_STYLES), strict=False):
        steps, means = run.series(f"rewards/{name}/mean")
        highest = run.ranges.get(name, (None, None))[1] or 1.0
        shares = [mean / highest for mean in means]
        rewards.plot(steps, shares, color=color, linestyle=line, linewidth=1.2, label=short_name(name))
    rewards.set_ylim(min([0.0, *rewards.get_ylim()]), 1.04)
    plain(rewards, "Rewards, share of maximum", percent=True, legend="best" if run.reward_weights else "")
    draw_series(length, run, "completions/mean_length", smoothing, BLUE, "-", mark_end=False)
    plain(length, "Completion length, tokens")
    length.set_ylim(0, None)
