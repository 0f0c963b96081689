"""Tables and figures of the experiments whose results are CSV files in data/results."""

from math import inf
from statistics import median

from r1nb.paths import DATA
from r1nb.text.statistics import wilson
from r1nb.views.plots import BLACK, MARKERS, REWARD_STYLES, Figure, as_percent, new_figure, plain
from r1nb.views.tables import percent, table_of


def read_results(name: str):
    """A CSV file of data/results as a pandas.DataFrame."""
    import pandas

    return pandas.read_csv(DATA / "results" / f"{name}.csv")


def pooled(results, split: str, rate: str = "strict"):
    """{arm or stage: (rate over all seeds, low, high)} on a test split; arms are measured after training.

    The Wilson interval takes the problems of all seeds together; it ignores that seeds differ, and that they
    answer the same problems. Before training all seeds have the same greedy policy, which counts once.
    """
    chosen = results[results["split"] == split]
    rows = {}
    for (arm, stage), group in chosen.groupby(["arm", "stage"], sort=False):
        group = group if stage == "after" else group[:1]
        n = int(group["n"].sum())
        hits = float((group[rate] * group["n"]).sum())
        rows[arm if stage == "after" else stage] = (hits / n, *wilson(hits, n))
    return rows


def explains(results, split: str, arm: str, within: float) -> str:
    """How far an arm explains the shipped run's gain, by the rule that was fixed before the runs.

    "all" if its accuracy over all seeds is at most `within` below that of the arm "shipped"; otherwise "part"
    if it is above that of the untrained, prefilled policy; otherwise "nothing".
    """
    rates = {name: rate for name, (rate, _, _) in pooled(results, split).items()}
    if rates[arm] >= rates["shipped"] - within:
        return "all"
    return "part" if rates[arm] > rates["prefilled"] else "nothing"


def arms_table(results, split: str, words: dict[str, str], within: float):
    """A table of each arm's strict accuracy, what it explains, tokens and pass@k; `words` names the arms."""
    chosen, together = results[results["split"] == split], pooled(results, split)
    names = chosen["arm"].where(chosen["stage"] == "after", chosen["stage"])
    passed, rows = [f"pass@{k}" for k in (1, 8) if chosen[f"pass@{k}"].notna().any()], []
    for name, said in words.items():
        group = chosen[names == name]
        trained = (group["stage"] == "after").all()
        rows.append({
            "": said,
            "strict, each seed": ", ".join(dict.fromkeys(f"{rate:.1%}" for rate in group["strict"])),
            "together": percent(*together[name]),
            "explains of the gain": explains(results, split, name, within) if trained else "",
            "tokens": f"{group['tokens'].mean():.0f}",
            **{f"{sampled}, sampled": f"{group[sampled].mean():.1%}" for sampled in passed},
        })  # fmt: skip
    return table_of(rows)


def draw_arms(results, split: str, words: dict[str, str]) -> Figure:
    """Strict accuracy of each arm: a mark for each seed, with its 95 % interval, and a line for prefilled."""
    figure = new_figure(9, 0.55 * len(words) + 1.1)
    axes = figure.subplots()
    chosen = results[(results["split"] == split) & (results["stage"] == "after")]
    seeds = chosen["seed"].nunique()
    for number, (seed, group) in enumerate(chosen.groupby("seed")):
        group = group.set_index("arm").loc[list(words)]
        places = [place + 0.2 * (number - (seeds - 1) / 2) for place in range(len(words))]
        error = [group["strict"] - group["strict_low"], group["strict_high"] - group["strict"]]
        axes.errorbar(group["strict"], places, xerr=error, fmt=MARKERS[number], label=f"seed {seed}",
                      color=REWARD_STYLES[number][0], markersize=5, linewidth=1.2)  # fmt: skip
    value = pooled(results, split)["prefilled"][0]
    axes.axvline(value, color=BLACK, linewidth=0.8, linestyle="--")
    axes.text(value, -0.75, " untrained, prefilled", fontsize=8, va="center")
    axes.set_yticks(range(len(words)), words.values(), fontsize=9)
    axes.set_ylim(len(words) - 0.4, -1)
    axes.set_xlim(-0.02, 1.02)
    as_percent(axes.xaxis)
    axes.set_xlabel(f"strict accuracy, {split}, with 95 % intervals", fontsize=9)
    plain(axes)
    figure.legend(fontsize=8, frameon=False, loc="outside upper right", ncols=seeds)
    return figure


def draw_curves(curves, words: dict[str, str], accuracy: float) -> Figure:
    """Strict accuracy on the validation rows over completions: one panel per arm, one line per seed."""
    rows, columns = -(-len(words) // 5), min(len(words), 5)
    figure = new_figure(11, 0.5 + 2.2 * rows)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for place, axes in enumerate(panels[len(words) :], len(words)):
        axes.remove()
        panels[place - columns].tick_params(labelbottom=True)  # it is the lowest in its column
    for axes, (arm, said) in zip(panels, words.items(), strict=False):
        for (color, line), (seed, group) in zip(REWARD_STYLES, _by_seed(curves, arm), strict=False):
            axes.plot("completions", "strict", data=group, color=color, linestyle=line, label=f"seed {seed}")
        axes.axhline(accuracy, color="grey", linewidth=0.8, linestyle="--", label=f"{accuracy:.0%}")
        plain(axes, said)
    as_percent(panels[0].yaxis)
    figure.supxlabel("completions sampled", fontsize=9)
    figure.supylabel("strict, 60 validation problems", fontsize=9)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, fontsize=8, frameon=False, loc="outside upper right", ncols=len(lines[0]))
    return figure


def completions_table(curves, words: dict[str, str], accuracy: float):
    """A table of the completions until each seed first reached an accuracy on the validation rows."""
    rows = [[said, *map(_count, reached(curves, arm, accuracy))] for arm, said in words.items()]
    seeds = [f"seed {seed}" for seed in sorted(curves["seed"].unique())]
    return table_of(rows, [f"completions to {accuracy:.0%}", *seeds])


def reached(curves, arm: str, accuracy: float, what: str = "completions") -> list[float]:
    """For each seed of an arm: the `completions`, or `cpu_seconds`, at which it first reached an accuracy;
    inf if it never did.
    """
    hits = [group[group["strict"] >= accuracy][what] for _, group in _by_seed(curves, arm)]
    return [float(hit.iloc[0]) if len(hit) else inf for hit in hits]


def lasting(curves, arm: str, accuracy: float, what: str = "completions") -> dict[int, float]:
    """{seed: `completions`, or `cpu_seconds`, from which on every evaluation is at least `accuracy`}; inf if
    the last evaluation is below it.
    """
    found = {}
    for seed, group in _by_seed(curves, arm):
        below = (group["strict"] < accuracy).to_numpy().nonzero()[0]
        first = below[-1] + 1 if len(below) else 0
        found[seed] = float(group[what].iloc[first]) if first < len(group) else inf
    return found


def seeds_table(curves, results, arm: str, accuracy: float, splits):
    """A table with a row for each seed of an arm: completions and CPU seconds until an accuracy is reached
    for good, the rates on the validation rows at the end, and the accuracy on each split with its interval.
    """
    after, rows = results[(results["stage"] == "after") & (results["arm"] == arm)], []
    completions, seconds = (lasting(curves, arm, accuracy, what) for what in ("completions", "cpu_seconds"))
    for seed, group in _by_seed(curves, arm):
        of_seed = after[after["seed"] == seed].set_index("split")
        shares = [percent(*of_seed.loc[split, ["strict", "strict_low", "strict_high"]]) for split in splits]
        ends = [f"{group[rate].iloc[-1]:.1%}" for rate in ("strict", "format")]
        rows.append([seed, _count(completions[seed]), _count(seconds[seed]), *ends, *shares])
    heads = ["seed", f"completions to {accuracy:.0%}", "CPU seconds", "validation: strict", "format"]
    return table_of(rows, [*heads, *splits])


def speedrun_table(curves, results, words: dict[str, str], accuracy: float, split: str, against: str):
    """A table with a row for each entry: what each seed needs until an accuracy is reached for good, the
    median of CPU seconds as a share of the median of `against`, and the accuracy on a split at the end.
    """
    after, rows = results[(results["stage"] == "after") & (results["split"] == split)], []
    others = median(lasting(curves, against, accuracy, "cpu_seconds").values())
    for arm, said in words.items():
        completions = list(lasting(curves, arm, accuracy).values())
        seconds = list(lasting(curves, arm, accuracy, "cpu_seconds").values())
        share = "never" if median(seconds) == inf else f"{median(seconds) / others:.0%}"
        ends = after[after["arm"] == arm].sort_values("seed")["strict"]
        rows.append([said, _shown(completions, _count), _shown(seconds, _count), share,
                     _shown(ends, "{:.0%}".format)])  # fmt: skip
    heads = [f"completions to {accuracy:.0%}", "CPU seconds", f"median beside {words[against]}"]
    return table_of(rows, ["", *heads, f"strict at the end, {split}"])


def draw_seeds(curves, words: dict[str, str], accuracy: float) -> Figure:
    """Strict accuracy on the validation rows over completions: a colour for each entry, a line per seed."""
    figure = new_figure(9, 4.2)
    axes = figure.subplots()
    for (arm, said), (color, line) in zip(words.items(), REWARD_STYLES, strict=False):
        for number, (_, group) in enumerate(_by_seed(curves, arm)):
            label = "_" if number else said  # one label per entry
            axes.plot("completions", "strict", data=group, color=color, linestyle=line, linewidth=0.9,
                      alpha=0.9, label=label)  # fmt: skip
    axes.axhline(accuracy, color="grey", linewidth=0.8, linestyle="--")
    axes.text(0, accuracy, f" {accuracy:.0%}", fontsize=8, color="grey", va="bottom")
    axes.set(ylim=(0, 1.02), xlabel="completions sampled", ylabel="strict accuracy, 240 validation problems")
    axes.set_xlim(left=0)
    plain(axes, percent=True)
    figure.legend(fontsize=8, frameon=False, loc="outside right upper")
    return figure


def verdict(values: list[float], others: list[float]) -> str:
    """ "more" or "less" if all `values` are above or below all `others`; else "not distinguishable".

    With three seeds each, two equal arms are called different once in ten times (2 of 20 orders).
    """
    if min(values) > max(others):
        return "more"
    return "less" if max(values) < min(others) else "not distinguishable"


def variants_table(results, curves, words: dict[str, str], accuracy: float, split: str, against: str):
    """A table with a row for each arm: what each seed needs until it first reaches an accuracy on the
    validation rows, its accuracy and tokens at the end, and the verdict against the arm `against`.
    """
    after = results[(results["stage"] == "after") & (results["split"] == split)].sort_values("seed")

    def figures(arm: str) -> list[list[float]]:
        ends = after[after["arm"] == arm]
        needs = [reached(curves, arm, accuracy, what) for what in ("completions", "cpu_seconds")]
        return [*needs, list(ends["strict"]), list(ends["tokens"])]

    rows, others, beside = [], figures(against), f"beside {words[against]}"
    for arm, said in words.items():
        completions, seconds, strict, tokens = mine = figures(arm)
        found = ["" if arm == against else verdict(mine[i], others[i]) for i in (0, 2)]
        rows.append(
            [said, _shown(completions, _count), found[0], _shown(seconds, _count),
             _shown(strict, "{:.0%}".format), found[1], _shown(tokens, "{:.0f}".format)]
        )  # fmt: skip
    needs = [f"{what} to {accuracy:.0%}" for what in ("completions", "CPU seconds")]
    return table_of(rows, ["", needs[0], beside, needs[1], "strict at the end", beside, "tokens"])


def _by_seed(curves, arm: str):
    """Pairs (seed, its lines) of an arm."""
    return curves[curves["arm"] == arm].groupby("seed")


def _shown(values: list[float], show) -> str:
    return ", ".join(map(show, values))


def _count(value: float) -> str:
    return "never" if value == inf else f"{value:,.0f}"
