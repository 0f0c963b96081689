"""Groups of completions as HTML: the question once, then each completion with its advantage and rewards.

All styles are inline, since Jupyter removes style sheets from the outputs of an untrusted notebook.
"""

from r1nb.rewards.registry import find_reward, shipped_names, short_name
from r1nb.text.prompts import LAYOUTS
from r1nb.views.html import BETTER, WORSE, color_of, colored, escape
from r1nb.views.tables import CUT_OFF, number

BAR = 50  # pixels of the largest advantage of a group, on each side of 0
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


def groups_html(log, run) -> str:
    """All groups of a log (Run.completions and with_verdicts), each under its question, best first."""
    shown = []
    for question, group in log.groupby("question", sort=False):
        best_first = group.sort_values("advantage", ascending=False).to_dict("records")
        rows = [_row(line, run, group["advantage"].abs().max()) for line in best_first]
        table = "width:100%;border-collapse:collapse;table-layout:fixed;margin:4px 0 16px 0"
        asked = head(question, group["answer"].iloc[0])
        shown.append(
            f'<div style="white-space:pre-wrap;text-align:left">{asked}</div>'
            f'<table style="{table}"><tbody>{"".join(rows)}</tbody></table>'
        )
    return "".join(shown)


def head(question: str, gold: str) -> str:
    """A question and its gold, if there is one."""
    return f"<b>{escape(question.strip())}</b>" + (f" &nbsp; gold: <b>{escape(gold)}</b>" if gold else "")


def _row(line: dict, run, largest: float) -> str:
    verdict, color = VERDICTS[line["right"]]
    best = run.best_total()
    total = f"total {number(line['total'], '.3g')}" + (f" of {best:.3g}" if best else "")
    facts = [
        f"{_bar(line['advantage'], largest)} <b>{number(line['advantage'], '+.2f')}</b>",
        f'<b style="color:{color}">{verdict}</b>' + CUT_OFF * line["cut"],
        escape(total),
        "".join(
            _cell(name, line[name], run.ranges.get(name, (None, None))[1]) for name in run.reward_weights
        ),
    ]
    layout = LAYOUTS[run.recipe["data"].get("layout", "reasoning")]
    cell = "vertical-align:top;text-align:left;padding:4px 8px 4px 0"
    return (
        f'<tr><td style="{cell};width:190px">{"<br>".join(filter(None, facts))}</td>'
        f'<td style="{cell};white-space:normal">{colored(line["completion"], layout)}</td></tr>'
    )


def _bar(advantage: float, largest: float) -> str:
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


def _cell(name: str, score: float | None, highest: float | None) -> str:
    """A reward with its score; the more of its maximum, the stronger the colour."""
    judged = score is not None and score == score
    share = min(1.0, max(0.0, score / highest)) if judged and highest else 0.0
    style = f"background:rgba(0,158,115,{0.08 + 0.42 * share:.2f});padding:0 4px;margin:1px 2px 1px 0"
    text = f"{short_name(name)} {number(score, '.3g')}"
    return f'<span style="display:inline-block;font-size:85%;{style}">{escape(text)}</span>'
