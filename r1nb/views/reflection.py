"""Figures and tables of reflection: how often completions check, try again and go back, and the results."""

from r1nb.evaluation.reflection import count_checks, read_reflection
from r1nb.text.prompts import LAYOUTS, Layout
from r1nb.text.statistics import wilson
from r1nb.views.plots import BLUE, REWARD_STYLES, new_figure, over_steps, plain
from r1nb.views.tables import CUT_OFF, DASH, MARKS, percent, table_by_column, table_of


def reasoning_curves(run):
    """Plot over training: completion length, how often completions check a result, and what the check did."""
    figure = new_figure(11, 3.2)
    length, checks = figure.subplots(1, 2)
    steps, mean = run.series("completions/mean_length")
    _, cut = run.series("completions/clipped_ratio")
    length.plot(steps, mean, color=BLUE)
    length.set(ylim=(0, None), xlabel="optimizer step", ylabel="tokens")
    plain(length, f"Mean completion length (cut off: {cut[-1]:.0%} at the end)")
    over_steps(length, steps[-1])
    groups = run.completions().groupby("step")["completion"]
    counts = {step: count_checks(list(texts)) for step, texts in groups}
    labels = {"with_check": "with a check", "corrected": "corrected a wrong step",
              "spoiled": "spoiled a right step"}  # fmt: skip
    shares = {label: {step: c[key] / c["completions"] for step, c in counts.items()}
              for key, label in labels.items()}  # fmt: skip
    _draw_shares(checks, shares, "Share of completions")
    return figure


def reflection_curves(run):
    """Plot over training: how often Countdown completions try, go back and check, and the outcomes."""
    figure = new_figure(11, 3.2)
    attempts, habits, outcomes = figure.subplots(1, 3)
    layout, read = LAYOUTS[run.recipe["data"]["layout"]], {}
    for line in run.completions()[["step", "prompt", "completion"]].itertuples():
        read.setdefault(line.step, []).append(read_reflection(line.completion, line.prompt, layout))

    def shares(said) -> dict[int, float]:
        return {step: sum(map(said, some)) / len(some) for step, some in read.items()}

    _draw_shares(attempts, {"": shares(lambda r: len(r.hits))}, "Attempts per completion", percent=False)
    _draw_shares(habits, {
        "goes back after a failed attempt": shares(lambda r: r.backtracks),
        "says check": shares(lambda r: r.checks),
        "word of reflection": shares(lambda r: r.words),
    }, "Share of completions that reflect")  # fmt: skip
    _draw_shares(outcomes, {
        "right": shares(lambda r: r.right),
        "rescued: first attempt wrong, goes back, right": shares(lambda r: r.change == "rescued"),
        "spoiled: first attempt right, answer wrong": shares(lambda r: r.change == "spoiled"),
    }, "Share of completions, by outcome")  # fmt: skip
    return figure


def _draw_shares(axes, shares: dict[str, dict[int, float]], title: str, percent: bool = True) -> None:
    """Draw {label: {step: value}} as lines; averaging to about 16 points makes rare events readable."""
    for (label, values), style in zip(shares.items(), (0, 2, 3), strict=False):
        order, every = sorted(values), max(1, len(values) // 16)
        bins = [order[i : i + every] for i in range(0, len(order), every)]
        means = [sum(values[step] for step in some) / len(some) for some in bins]
        color, line = REWARD_STYLES[style]
        axes.plot([sum(some) / len(some) for some in bins], means, color=color, linestyle=line, marker="o",
                  markersize=3, label=label)  # fmt: skip
    if len(shares) > 1:
        axes.margins(y=0.35)  # room for the legend
    plain(axes, title, percent=percent, legend="upper left" if len(shares) > 1 else "")
    axes.set(ylim=(0, None), xlabel="optimizer step")
    over_steps(axes, max(order))


def reflection_table(answers: dict[str, list], layout: Layout):
    """How often graded Countdown answers try, check, go back and are right: a column per {name: graded}."""
    columns = {}
    for name, graded in answers.items():
        read = [read_reflection(g.completion, g.question, layout) for g in graded]
        tried = [r for r in read if r.hits]
        failed = [r for r in tried if not r.hits[0]]
        columns[name] = {
            "completions": str(len(read)),
            "attempts, mean": f"{sum(len(r.hits) for r in read) / max(1, len(read)):.2f}",
            "goes back after a failed attempt": _share(r.backtracks for r in read),
            "says check": _share(r.checks for r in read),
            "word of reflection": _share(r.words for r in read),
            "rescued: first attempt wrong, goes back, right": _share(r.change == "rescued" for r in read),
            "spoiled: first attempt right, answer wrong": _share(r.change == "spoiled" for r in read),
            "first attempt right": _share(r.hits[0] for r in tried),
            "first attempt failed, goes back: right": _share(r.right for r in failed if r.backtracks),
            "first attempt failed, stops there: right": _share(r.right for r in failed if not r.backtracks),
        }
    return table_by_column(columns)


def attempts_table(answers: dict[str, list], layout: Layout, most: int = 6):
    """The share of n-th attempts that hit the target, over the graded Countdown answers that make one."""
    rows = []
    for name, graded in answers.items():
        hits = [read_reflection(g.completion, g.question, layout).hits for g in graded]
        rows.append([name, *(_share(h[n] for h in hits if len(h) > n) for n in range(most))])
    return table_of(rows, ["the attempt hits", *(f"attempt {n + 1}" for n in range(most))])


def reflections_table(graded: list, layout: Layout, each: int = 2):
    """Up to `each` graded Countdown answers that were rescued, were spoiled, or went back in vain."""
    rows, left = [], dict.fromkeys(("rescued", "spoiled", "in vain"), each)
    for g in graded:
        read = read_reflection(g.completion, g.question, layout)
        what = read.change or ("in vain" if read.backtracks and not read.right else "")
        if left.get(what):
            left[what] -= 1
            tried = " ".join(MARKS[hit] for hit in read.hits)
            rows.append([what, g.question, g.completion + CUT_OFF * g.cut, tried, MARKS[read.right]])
    rows.sort(key=lambda row: list(left).index(row[0]))
    return table_of(rows, ["", "question", "completion", "attempts", "answer"])


def _share(flags) -> str:
    """The share of true flags with its 95 % interval, and the number of flags; a dash if there are none."""
    flags = list(flags)
    if not flags:
        return DASH
    return f"{percent(sum(flags) / len(flags), *wilson(sum(flags), len(flags)))} of {len(flags)}"
