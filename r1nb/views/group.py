"""Groups of completions as HTML: the question once, then each completion with its advantage and rewards.

All styles are inline, since Jupyter removes style sheets from the outputs of an untrusted notebook.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

import pandas

from r1nb.rewards.grading import Graded, Judge
from r1nb.rewards.registry import Reward, find_reward, shipped_names, short_name
from r1nb.text.prompts import LAYOUTS, Layout
from r1nb.views.html import BETTER, WORSE, color_of, colored, escape
from r1nb.views.tables import CUT_OFF, MARKS, number

BAR = 50  # pixels of the largest advantage of a group, on each side of 0
CELL = "padding:0 8px 0 0;text-align:left;vertical-align:top"
ROW_CELL = "vertical-align:top;text-align:left;padding:4px 8px 4px 0"
TABLE = "width:100%;border-collapse:collapse;table-layout:fixed"
BINS = 6  # of a histogram of lengths, at most
VERDICTS = {True: ("✓ right", BETTER), False: ("✗ wrong", WORSE), None: ("", "")}
FILTERS = {
    "all completions": lambda group: group,
    "right": lambda group: group[group["right"].eq(True)],
    "wrong": lambda group: group[group["right"].eq(False)],
    "cut off": lambda group: group[group["cut"]],
    "best of each group": lambda group: group.nlargest(1, "advantage"),
    "worst of each group": lambda group: group.nsmallest(1, "advantage"),
}


def with_verdicts(log, run):
    """The log with a column `right`: True, False, or None if no reward of the run judges answers."""
    shipped = set(shipped_names())
    judges = [n for n in run.reward_weights if n in shipped and find_reward(n).judges == "answer"]
    if not judges or judges[0] not in run.ranges:
        return log.assign(right=None)
    scores, highest = log[judges[0]], run.ranges[judges[0]][1]
    return log.assign(right=(scores >= highest).astype(object).where(scores.notna(), None))


@dataclass(frozen=True)
class _Scoring:
    """What rows need to show rewards: the maximum and the weight of each, and those that give reasons."""

    highs: dict[str, float | None]
    weights: dict[str, float]
    best: float | None
    layout: Layout
    explaining: dict[str, Reward]


def _quick(rewards: dict[str, Reward], columns) -> dict[str, Reward]:
    """The shipped rewards that can say at once, from these columns of a row, why a score is what it is."""
    known = {name: rewards[name] for name in shipped_names() if name in rewards}
    quick = {name: reward for name, reward in known.items() if not reward.library and reward.threads == 1}
    return {name: reward for name, reward in quick.items() if set(reward.needs) <= set(columns)}


def groups_html(log, run) -> str:
    """All groups of a log (Run.completions and with_verdicts), each under its question, best first."""
    highs = {name: run.ranges.get(name, (None, None))[1] for name in run.reward_weights}
    layout, shipped = LAYOUTS[run.recipe["data"].get("layout", "reasoning")], set(shipped_names())
    rewards = {name: find_reward(name).bind(layout=layout) for name in highs if name in shipped}
    scoring = _Scoring(highs, run.reward_weights, run.best_total(), layout, _quick(rewards, log.columns))
    return "".join(
        _group(head(question, group["answer"].iloc[0]), group, scoring)
        for question, group in log.groupby("question", sort=False)
    )


def group_html(graded: list[Graded], judge: Judge, advantages: list[float]) -> str:
    """A group of graded completions under its question, best first."""
    lines = [
        {"advantage": advantage, "right": g.strict, "cut": g.cut, "total": judge.total(g.rewards),
         "completion": g.completion, "answer": g.answer, **g.rewards}
        for g, advantage in zip(graded, advantages, strict=True)
    ]  # fmt: skip
    highs = {name: reward.high for name, reward in judge.rewards.items()}
    asked = head(graded[0].question, graded[0].answer)
    scoring = _Scoring(highs, judge.weights, judge.best_total, judge.layout, _quick(judge.rewards, lines[0]))
    return _group(asked, pandas.DataFrame(lines), scoring)


def group_facts(graded: list[Graded]) -> str:
    """How many of a group are right, its distinct answers, and a histogram of its lengths in tokens."""
    counts = Counter(_plain(g.given) or "none" for g in graded)
    answers = ", ".join(f"{escape(answer)} ({count})" for answer, count in counts.most_common())
    right, cut = sum(g.strict is True for g in graded), sum(g.cut for g in graded)
    longest = max(len(g.ids) for g in graded)
    width = max(1, math.ceil((longest + 1) / BINS))
    lines = []
    for low in range(0, longest + 1, width):
        marks = "".join(
            f'<b style="color:{VERDICTS[g.strict][1]}">{MARKS[g.strict]}</b> '
            for g in graded
            if low <= len(g.ids) < low + width
        )
        span = f"{low} to {low + width - 1} tokens"
        lines.append(
            f'<tr><td style="{CELL};text-align:right">{span}</td><td style="{CELL}">{marks}</td></tr>'
        )
    said = f"{len(counts)} distinct answers: {answers}; {cut} cut off"
    return (
        f"<p><b>{right} of {len(graded)} right</b>, {said}</p>"
        f'<table style="border-collapse:collapse"><tbody>{"".join(lines)}</tbody></table>'
    )


def _plain(given: str) -> str:
    """Graded.given as people write it: 30, not 3E+1."""
    return f"{Decimal(given):f}" if re.fullmatch(r"-?[\d.]+E\+\d", given) else given


def _group(asked: str, group, scoring: _Scoring) -> str:
    """The lines of a group in a table under its question, best first."""
    best_first = group.sort_values("advantage", ascending=False).to_dict("records")
    rows = [_row(line, scoring, group["advantage"].abs().max()) for line in best_first]
    return (
        f'<div style="white-space:pre-wrap;text-align:left">{asked}</div>'
        f'<table style="{TABLE};margin:4px 0 16px 0"><tbody>{"".join(rows)}</tbody></table>'
    )


def head(question: str, gold: str) -> str:
    """A question and its gold, if there is one."""
    return f"<b>{escape(question.strip())}</b>" + (f" &nbsp; gold: <b>{escape(gold)}</b>" if gold else "")


def _row(line: dict, scoring: _Scoring, largest: float) -> str:
    total = f"total {number(line['total'], '.3g')}" + (f" of {scoring.best:.3g}" if scoring.best else "")
    cells = (_cell(name, line[name], high, scoring.weights[name]) for name, high in scoring.highs.items())
    facts = [
        f"{bar(line['advantage'], largest)} <b>{number(line['advantage'], '+.2f')}</b>",
        verdict(line["right"], line["cut"]),
        escape(total),
        "".join(cells) + _why(line, scoring.explaining),
    ]
    return (
        f'<tr><td style="{ROW_CELL};width:190px">{"<br>".join(filter(None, facts))}</td>'
        f'<td style="{ROW_CELL};white-space:normal">{colored(line["completion"], scoring.layout)}</td></tr>'
    )


def _why(line: dict, rewards: dict[str, Reward]) -> str:
    """The reasons of the scores below their maximum, to unfold."""
    row, reasons = {"answer": "", **line}, []
    text = row.pop("completion")
    for name, reward in rewards.items():
        score, why = reward.explain(text, **row)
        if score is not None and score < reward.high:
            reasons.append(escape(f"{short_name(name)} {score:g}: {why}"))
    said = "<br>".join(reasons)
    return f'<details style="font-size:85%"><summary>why</summary>{said}</details>' if said else ""


def verdict(right: bool | None, cut: bool) -> str:
    """Whether a completion is right, in words and colour, and whether it was cut off."""
    words, color = VERDICTS[right]
    return f'<b style="color:{color}">{words}</b>' + CUT_OFF * cut


def bar(advantage: float, largest: float) -> str:
    """A bar to the right of the middle for an advantage above 0, to the left for one below."""
    width = round(BAR * abs(advantage) / largest) if largest > 0 and advantage == advantage else 0
    style = f"display:inline-block;height:9px;width:{width}px;background:{color_of(advantage)}"
    bar = f'<span style="{style}"></span>'
    left, right = ("", bar) if advantage > 0 else (bar, "")
    half = f"display:inline-block;width:{BAR}px;height:11px;line-height:9px;vertical-align:middle"
    return (
        f'<span style="{half};text-align:right">{left}</span>'
        f'<span style="{half};text-align:left;border-left:1px solid rgb(128,128,128)">{right}</span>'
    )


def _cell(name: str, score: float | None, highest: float | None, weight: float) -> str:
    """A reward with its score, in brackets if its weight is 0; the colour is its share of its maximum."""
    judged = score is not None and score == score
    share = min(1.0, max(0.0, score / highest)) if judged and highest else 0.0
    style = f"background:rgba(0,158,115,{0.08 + 0.42 * share:.2f});padding:0 4px;margin:1px 2px 1px 0"
    text = f"{short_name(name)} {number(score, '.3g')}"
    text = text if weight else f"({text})"
    return f'<span style="display:inline-block;font-size:85%;{style}">{escape(text)}</span>'
