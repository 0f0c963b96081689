"""Tables for a notebook. Completions are text to be shown, never markup: all of it is escaped."""

from r1nb.evaluation.comparison import by_group, sources_of_gain, telling_changes
from r1nb.rewards.grading import Judge, summarize, summarize_samples
from r1nb.rewards.registry import find_reward, reward_names, short_name
from r1nb.runs.evaluations import MOMENTS
from r1nb.tasks.sources import SOURCES
from r1nb.views.html import NO_MATH, escape

CUT_OFF = " ✂ cut off"
MARKS = {True: "✓", False: "✗", None: "–"}  # noqa: RUF001
PARTS = {
    "format": "right before, but not in the answer block",
    "mode": "what reasoning adds to the untrained policy: its reply prefilled with <reasoning>",
    "remainder": "what neither explains: learnt, or chosen more often",
    "in all": "strict accuracy, after less before",
}


def accuracy_table(run):
    """Rates with intervals and mean rewards, for each test split and moment so far."""
    return rates_table(
        {
            (f"{split} ({moments[moment]['n']})", shown): moments[moment]
            for split, moments in run.evaluation().items()
            for moment, shown in MOMENTS.items()
            if moment in moments
        }
    )


def rates_table(summaries: dict):
    """Rates with intervals, length and mean rewards; a column for each {name: summarize(..)}."""
    rows: dict[str, list[str]] = {}
    for summary in summaries.values():
        cells = {rate: rate_cell(summary, rate) for rate in ("strict", "lenient", "format")}
        cells["cut off"] = f"{summary['cut']:.1%}"
        cells["tokens, mean"] = f"{summary['tokens']:.0f}"
        cells |= {short_name(name): score_cell(mean) for name, mean in summary["rewards"].items()}
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    corner = ("", "") if isinstance(next(iter(summaries), ""), tuple) else ""
    return table_of([[name, *cells] for name, cells in rows.items()], [corner, *summaries])


def gain_table(run):
    """Where the gain in strict accuracy comes from, for each test split (comparison.sources_of_gain)."""
    moments = [run.graded(moment) for moment in MOMENTS]
    splits = [split for split in moments[0] if all(split in graded for graded in moments)]
    parts = {split: sources_of_gain(*(graded[split] for graded in moments)) for split in splits}
    rows = []
    for part, words in PARTS.items():
        cells = [
            f"{100 * share:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            for share, low, high in (parts[split][part] for split in splits)
        ]
        rows.append([part, *cells, words])
    return table_of(rows, ["points of strict accuracy", *splits, "what it is"])


def pass_table(run):
    """pass@k and maj@k at each moment, with intervals; of the problems that were sampled."""
    rows, ks = [], []
    for moment, shown in MOMENTS.items():
        for split, groups in run.samples(moment).items():
            summary = summarize_samples(groups)
            ks = list(summary["pass"]) or ks
            for kind in ("pass", "maj"):
                cells = [percent(*summary[kind][k]) for k in ks if not (kind == "maj" and k in ("1", "2"))]
                cells = ["–"] * (len(ks) - len(cells)) + cells  # noqa: RUF001  # a vote of one or two is none
                rows.append([f"{split} ({summary['problems']})", shown, f"{kind}@k", *cells])
    return table_of(rows, ["problems", "moment", "", *(f"k = {k}" for k in ks)])


def kinds_table(run, split: str):
    """Strict accuracy at each moment by kind of problem and number of steps."""
    there = {shown: run.graded(moment).get(split) for moment, shown in MOMENTS.items()}
    groups = {shown: by_group(graded) for shown, graded in there.items() if graded}
    rows = []
    for kind, steps in next(iter(groups.values()), ()):
        summaries = [summarize(g[kind, steps]) for g in groups.values() if (kind, steps) in g]
        rows.append(
            [kind or "–", str(steps or "–"), str(summaries[-1]["n"]),  # noqa: RUF001
             *(rate_cell(summary, "strict") for summary in summaries)]
        )  # fmt: skip
    return table_of(rows, ["kind", "steps", "n", *groups])


def changes_table(run, split: str):
    """The most telling changes from prefilled to after, right to wrong before wrong to right."""
    sides = [run.graded(moment).get(split, []) for moment in ("prefilled", "after")]
    pairs = telling_changes(*sides) if all(sides) else []
    rows = [
        [f"{MARKS[a.strict]} → {MARKS[b.strict]}", a.question, a.answer,
         a.completion + CUT_OFF * a.cut, b.completion + CUT_OFF * b.cut]
        for a, b in pairs
    ]  # fmt: skip
    return table_of(rows, ["", "question", "gold", MOMENTS["prefilled"], MOMENTS["after"]])


def percent(value: float, low: float, high: float) -> str:
    return f"{value:.1%} [{low * 100:.1f}, {high * 100:.1f}]"


def rate_cell(summary: dict, rate: str) -> str:
    """A rate with its 95 % interval: 93.0% [89.5, 95.4]."""
    if summary[rate] is None:
        return score_cell(None)
    return percent(summary[rate], *summary[f"{rate}_interval"])


def score_cell(score: float | None) -> str:
    """A score, or a dash where none was given."""
    return "–" if score is None else f"{score:.3f}"  # noqa: RUF001


def settings_table(recipe):
    """The GRPO and LoRA values that decide a run, each with its reason."""
    return table_of([[str(cell) for cell in row] for row in recipe.reasons()], ["setting", "value", "why"])


def completion_table(run, steps: list[int], each: int):
    """Sampled completions of some steps with each reward, their total and their advantage.

    Of the group whose rewards differ most, the completions of lowest and highest advantage are
    shown, and others between them, `each` in all.
    """
    names, rows = list(run.reward_weights), []
    for step in steps:
        log = run.completions(step)
        widest = log.groupby("prompt")["total"].std().idxmax()
        group = log[log["prompt"] == widest].sort_values("advantage")
        picked = sorted({round(i * (len(group) - 1) / max(1, each - 1)) for i in range(each)})
        for line in group.iloc[picked].to_dict("records"):
            values = [f"{line[name]:g}" for name in [*names, "total"]]  # nan: not judged
            text = line["completion"] + CUT_OFF * line["cut"]
            rows.append([str(step), line["answer"], text, *values, f"{line['advantage']:+.2f}"])
    return table_of(rows, ["step", "gold", "completion", *map(short_name, names), "total", "advantage"])


def answers_table(run, problems: int):
    """The same validation problems answered at the start, in the middle and at the end of a run."""
    answered = {step: run.validation(step)[:problems] for step in run.validated()}
    rows = []
    for answers in zip(*answered.values(), strict=True):
        shown = [f"{MARKS[a['strict']]} {a['completion']}" + CUT_OFF * a["cut"] for a in answers]
        rows.append([answers[0]["question"], answers[0]["answer"], *shown])
    return table_of(rows, ["question", "gold", *(f"after step {step}" for step in answered)])


def differences_table(runs):
    """The settings in which the recipes of some runs differ."""
    import pandas

    flat = [pandas.json_normalize(run.recipe).drop(columns="name").iloc[0].astype(str) for run in runs]
    table = pandas.concat(flat, axis=1).fillna("–")  # noqa: RUF001
    table = table[~table.index.str.startswith(("why.", "about", "output."))]
    rows = [[key, *line] for key, *line in table[table.nunique(axis=1) > 1].itertuples()]
    return table_of(rows, ["setting", *(run.name for run in runs)])


def side_by_side(policy, rows, judge: Judge, sampling):
    """Answers of the base beside those of the adapter, with a mark for each right one.

    `rows` are dicts with a question; with an answer (and what else the reward needs) they are marked.
    """
    rows = [dict(row) for row in rows]
    prompts = [judge.layout.build_messages(row["question"]) for row in rows]
    sides = {"base": False, "adapter": True} if policy.has_adapter else {"model": True}
    answers = [
        [c.text for c in policy.generate(prompts, sampling, adapter=adapter)] for adapter in sides.values()
    ]
    golds = any(row.get("answer") for row in rows)
    lines = []
    for row, *texts in zip(rows, *answers, strict=True):
        gold = [row.get("answer") or ""] if golds else []
        lines.append([row["question"], *gold, *(_marked(text, row, judge.answer) for text in texts)])
    return table_of(lines, ["question", *(["gold"] if golds else []), *sides])


def _marked(text: str, row: dict, reward) -> str:
    """The text with a mark: right, wrong, or not judged."""
    if "answer" not in row:
        return text
    score = reward.score(text, **row)
    return f"{MARKS[None if score is None else score >= reward.high]} {text}"


def scores_table(names: list[str], completions: dict[str, str], answer: str):
    """What each completion earns from some rewards with the gold `answer`, and in all."""
    rows = []
    for label, text in completions.items():
        scores = [find_reward(name).score(text, answer) for name in names]
        total = sum(score for score in scores if score is not None)
        rows.append([label, *map(score_cell, scores), score_cell(total)])
    return table_of(rows, ["completion", *map(short_name, names), "total"])


def reasons_table(name: str, completions: list[str], answer: str = "", **columns):
    """What each completion earns from one reward with the gold `answer`, and why."""
    scorer = find_reward(name)
    explained = [(text, *scorer.explain(text, answer, **columns)) for text in completions]
    rows = [[text, score_cell(score), reason] for text, score, reason in explained]
    return table_of(rows, ["completion", f"of {scorer.high:g}", "why"])


def rewards_table():
    """Every reward that a recipe can name: its range and what it does."""
    rows = []
    for name in reward_names():
        func = find_reward(name)
        summary = " ".join(func.__doc__.strip().split("\n\n")[0].split())
        rows.append([name, f"{func.low:g} to {func.high:g}", summary])
    return table_of(rows, ["reward", "range", "what it pays"])


def sources_table():
    """The datasets that load_rows knows by name."""
    rows = [
        [name, ", ".join(source.columns), source.gold, " or ".join(map(short_name, source.rewards)),
         "evaluate only" if source.benchmark else "yes", source.licence, source.card]
        for name, source in SOURCES.items()
    ]  # fmt: skip
    heads = ["dataset", "columns", "gold", "rewards that suit", "train on it", "licence", "card"]
    return table_of(rows, heads)


def table_of(rows: list[list[str]], columns: list):
    """Rows of text as a table that a notebook shows as it is."""
    import pandas

    if columns and isinstance(columns[0], tuple):
        columns = pandas.MultiIndex.from_tuples(columns)
    table = pandas.DataFrame(rows, columns=columns)
    cells = "text-align: left; vertical-align: top; white-space: normal; padding: 4px 12px 4px 0"
    styles = [{"selector": "th", "props": "text-align: left"}, {"selector": "td", "props": cells}]
    style = table.style.hide(axis="index").format(_escaped).format_index(_escaped, axis="columns")
    return style.set_table_styles(styles).set_uuid("r1nb").set_table_attributes(NO_MATH)


def _escaped(text) -> str:
    return escape(text).replace("\n", "<br>")
