"""Tables for notebooks. All text in them is escaped, so that markup in a completion is shown as text."""

import math
import re

import pandas
from pandas.io.formats.style import Styler

from r1nb.errors import UserError, say_once
from r1nb.evaluation.comparison import by_group, compare, sources_of_gain, telling_changes
from r1nb.rewards.grading import Judge, summarize, summarize_samples
from r1nb.rewards.registry import find_reward, reward_names, short_name
from r1nb.runs.evaluations import MOMENTS
from r1nb.tasks.sources import SOURCES
from r1nb.views.html import NO_MATH, escape

CUT_OFF = " ✂ cut off"
LEFT = "text-align: left; vertical-align: top; padding: 4px 12px 4px 0"
STYLES = {"td": f"{LEFT}; white-space: normal", "th": LEFT,
          "caption": "caption-side: bottom; text-align: left; padding-top: 4px"}  # fmt: skip
DASH = "–"  # noqa: RUF001  # for an answer that was not judged, or a missing value
MARKS = {True: "✓", False: "✗", None: DASH}
PARTS = {
    "format": "answers that were right before, but not in the answer block",
    "mode": "what the untrained policy gains by reasoning, when its reply is prefilled with <reasoning>",
    "remainder": "the rest: learnt in training, or known before and now chosen more often",
    "in all": "strict accuracy after training minus strict accuracy before",
}


def accuracy_table(run):
    """Rates with intervals and mean rewards, for each test split and moment so far."""
    summaries = {}
    for split, moments in run.evaluation().items():
        for moment, shown in MOMENTS.items():
            if summary := moments.get(moment):
                summaries[f"{split} ({summary['n']})", shown] = summary
    return rates_table(summaries)


def rates_table(summaries: dict):
    """Rates with intervals, length and mean rewards; a column for each {name: summarize(..)}."""
    columns = {}
    for name, summary in summaries.items():
        cells = {rate: rate_cell(summary, rate) for rate in ("strict", "lenient", "format")}
        cells |= {"cut off": f"{summary['cut']:.1%}", "tokens, mean": f"{summary['tokens']:.0f}"}
        columns[name] = cells | {short_name(r): number(mean) for r, mean in summary["rewards"].items()}
    return table_by_column(columns)


def gain_table(run):
    """Where the gain in strict accuracy comes from, for each test split (comparison.sources_of_gain)."""
    moments, columns = [run.graded(moment) for moment in MOMENTS], {}
    for split in moments[0]:
        if all(split in graded for graded in moments):
            parts = sources_of_gain(*(graded[split] for graded in moments))
            points = {part: [number(100 * share, "+.1f") for share in parts[part]] for part in PARTS}
            columns[split] = {part: f"{mean} [{low}, {high}]" for part, (mean, low, high) in points.items()}
    return table_by_column(columns | {"meaning": PARTS}, "points of strict accuracy")


def pass_table(run):
    """pass@k and maj@k at each moment, with intervals, for the problems that were sampled."""
    rows = []
    for moment, shown in MOMENTS.items():
        for split, groups in run.samples(moment).items():
            summary = summarize_samples(groups)
            votes = {k: share for k, share in summary["maj"].items() if int(k) > 2}  # two have no majority
            for kind, shares in (("pass@k", summary["pass"]), ("maj@k", votes)):
                cells = {f"k = {k}": percent(*share) for k, share in shares.items()}
                problems = f"{split} ({summary['problems']})"
                rows.append({"problems": problems, "moment": shown, "": kind} | cells)
    return table_of(rows)


def kinds_table(run, split: str):
    """Strict accuracy at each moment by kind of problem and number of steps."""
    moments = {shown: run.graded(moment).get(split) for moment, shown in MOMENTS.items()}
    groups = {shown: by_group(graded) for shown, graded in moments.items() if graded}
    rows = []
    for (kind, steps), graded in next(iter(groups.values()), {}).items():
        row = {"kind": kind or DASH, "steps": str(steps or DASH), "n": str(len(graded))}
        answered = {shown: group[kind, steps] for shown, group in groups.items() if (kind, steps) in group}
        rows.append(row | {shown: rate_cell(summarize(g), "strict") for shown, g in answered.items()})
    return table_of(rows)


def changes_table(run, split: str):
    """The most telling changes from prefilled to after: right to wrong first, then wrong to right."""
    sides = [run.graded(moment).get(split, []) for moment in ("prefilled", "after")]
    return pairs_table(telling_changes(*sides) if all(sides) else [], MOMENTS["prefilled"], MOMENTS["after"])


def wrong_table(run, split: str, most: int = 10):
    """Up to `most` problems that are wrong after training; those that were right before come first."""
    sides = [run.graded(moment).get(split, []) for moment in ("before", "after")]
    wrong = [pair for pair in zip(*sides, strict=True) if pair[1].strict is False] if all(sides) else []
    wrong.sort(key=lambda pair: not pair[0].strict)
    return pairs_table(wrong[:most], MOMENTS["before"], MOMENTS["after"])


def pairs_table(pairs: list[tuple], *names: str):
    """The answers of two policies, whose names are given, to the same problems, with their verdicts."""
    rows = []
    for pair in pairs:
        marks = " → ".join(MARKS[graded.strict] for graded in pair)
        texts = [graded.completion + CUT_OFF * graded.cut for graded in pair]
        rows.append([marks, pair[0].question, pair[0].answer, *texts])
    return table_of(rows, ["", "question", "gold", *names])


def comparison_table(comparison, first: str, second: str):
    """A comparison.Comparison as a 2 x 2 table of problems; the difference, its interval and p are below it.

    `first` and `second` are the names of the two policies.
    """
    rows = [
        [f"{first}: right", str(comparison.both), str(comparison.first_only)],
        [f"{first}: wrong", str(comparison.second_only), str(comparison.neither)],
    ]
    table = table_of(rows, ["", f"{second}: right", f"{second}: wrong"])
    return table.set_caption(escape(comparison.change))


def percent(value: float, low: float, high: float) -> str:
    return f"{value:.1%} [{low * 100:.1f}, {high * 100:.1f}]"


def rate_cell(summary: dict, rate: str) -> str:
    """A rate with its 95 % interval: 93.0% [89.5, 95.4]."""
    value, interval = summary[rate], summary[f"{rate}_interval"]
    return DASH if None in (value, interval) else percent(value, *interval)


def number(value: float | None, form: str = ".3f") -> str:
    """A number as text; a dash for None, NaN ("not judged" in the completion log) and an unknown maximum."""
    return DASH if value is None or not math.isfinite(value) else format(value, form)


def completion_table(run, steps: list[int], each: int):
    """Sampled completions of some steps with each reward, their total and their advantage.

    For each step, `each` completions of the group whose rewards differ most are shown: those of lowest and
    highest advantage, and others between them. A step without readable completions is left out,
    and a printed sentence says so.
    """
    names, rows = list(run.reward_weights), []
    for step in steps:
        try:
            log = run.completions(step)
        except UserError as error:  # torn
            say_once(str(error))
            continue
        widest = log.groupby("prompt")["total"].std().fillna(0).idxmax()
        group = log[log["prompt"] == widest].sort_values("advantage")
        picked = sorted({round(i * (len(group) - 1) / max(1, each - 1)) for i in range(each)})
        for line in group.iloc[picked].to_dict("records"):
            values = [number(line[name], "g") for name in [*names, "total"]]
            text = line["completion"] + CUT_OFF * line["cut"]
            rows.append([str(step), line["answer"], text, *values, number(line["advantage"], "+.2f")])
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
    rows = [[key, *values] for key, values in differences(runs).items()]
    return table_of(rows, ["setting", *(run.name for run in runs)])


def compare_runs(runs) -> list:
    """Tables: the settings in which runs differ, their accuracy after training, and who was right where.

    The last is for two runs with answers to the same test problems.
    """
    found = {run.name: run.evaluation() for run in runs}
    splits = dict.fromkeys(split for measured in found.values() for split in measured)
    rates = {(split, name): found[name].get(split, {}).get("after") for split in splits for name in found}
    after = {column: summary for column, summary in rates.items() if summary}
    tables = [differences_table(runs), *([rates_table(after)] if after else [])]
    if len(runs) == 2:
        first, second = (run.graded("after") for run in runs)
        for split in first:
            if [g.question for g in first[split]] == [g.question for g in second.get(split, [])]:
                compared = compare(first[split], second[split])
                tables.append(comparison_table(compared, f"{split}, {runs[0].name}", runs[1].name))
    return tables


def differences(runs) -> dict[str, list[str]]:
    """{setting: its value in each run} for the settings in which the recipes of some runs differ."""
    flat = [pandas.json_normalize(run.recipe).drop(columns="name").iloc[0].astype(str) for run in runs]
    table = pandas.concat(flat, axis=1).fillna(DASH)
    table = table[~table.index.str.startswith(("why.", "about", "output."))]
    return {key: list(line) for key, *line in table[table.nunique(axis=1) > 1].itertuples()}


def side_by_side(policy, rows, judge: Judge, sampling):
    """Answers of the base model beside answers of the adapter, each marked right, wrong or not judged.

    `rows` are dicts with a question. A mark needs an answer, and any other columns that the reward reads.
    """
    rows = [dict(row) for row in rows]
    prompts = [judge.layout.build_messages(row["question"]) for row in rows]
    lines = [{"question": row["question"]} for row in rows]
    if any(row.get("answer") for row in rows):
        lines = [line | {"gold": row.get("answer") or ""} for line, row in zip(lines, rows, strict=True)]
    for side, adapter in policy.sides.items():
        completions = policy.generate(prompts, sampling, adapter=adapter)
        for line, row, completion in zip(lines, rows, completions, strict=True):
            line[side] = _marked(completion.text, row, judge.answer)
    return table_of(lines)


def _marked(text: str, row: dict, reward) -> str:
    if row.get("answer") is None:
        return text
    score = reward.score(text, **row)
    return f"{MARKS[None if score is None else score >= reward.high]} {text}"


def scores_table(names: list[str], completions: dict[str, str], answer: str):
    """The score of each completion by some rewards with the gold `answer`, and the total."""
    rows = []
    for label, text in completions.items():
        scores = [find_reward(name).score(text, answer) for name in names]
        given = [score for score in scores if score is not None]
        rows.append([label, *map(number, scores), number(sum(given) if given else None)])
    return table_of(rows, ["completion", *map(short_name, names), "total"])


def reasons_table(name: str, completions: list[str], answer: str = "", **columns):
    """The score of each completion by one reward with the gold `answer`, and the reason for it."""
    scorer = find_reward(name)
    explained = [(text, *scorer.explain(text, answer, **columns)) for text in completions]
    rows = [[text, number(score), reason] for text, score, reason in explained]
    return table_of(rows, ["completion", f"of {number(scorer.high, 'g')}", "why"])


def rewards_table():
    """Every reward that a recipe can name: its range and what it does."""
    rows = []
    for func in map(find_reward, reward_names()):
        summary = " ".join(func.__doc__.strip().split("\n\n")[0].split())
        rows.append([func.__name__, f"{func.low:g} to {func.high:g}", summary])
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


def table_by_column(columns: dict[str, dict[str, str]], corner: str = ""):
    """A table of {column: {row: cell}}; a column may be a pair (group of columns, column)."""
    first = (corner, "") if isinstance(next(iter(columns), ""), tuple) else corner
    names = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    rows = [[name, *(cells.get(name, DASH) for cells in columns.values())] for name in names]
    return table_of(rows, [first, *columns])


def table_of(rows: list, columns: list | None = None):
    """A table that notebooks display, from rows of text: lists, or dicts by column."""
    if columns and isinstance(columns[0], tuple):
        columns = pandas.MultiIndex.from_tuples(columns)
    table = Table(pandas.DataFrame(rows, columns=columns).fillna(DASH), uuid="r1nb", cell_ids=False)
    table.hide(axis="index").format(_escaped).format_index(_escaped, axis="columns")
    return table.set_table_attributes(NO_MATH)


class Table(Styler):
    """A table whose styles are inline: Jupyter removes style sheets from an untrusted notebook."""

    def to_html(self, *args, **kwargs):
        html = super().to_html(*args, **kwargs)
        html = re.sub(r"<style.*?</style>\s*", "", html, flags=re.DOTALL)
        return re.sub("<(td|th|caption)\\b", lambda tag: f'{tag[0]} style="{STYLES[tag[1]]}"', html)


def _escaped(text) -> str:
    return escape(text).replace("\n", "<br>")
