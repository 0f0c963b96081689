"""Playgrounds for notebooks: edit a completion, or a group of them, and see what it earns and why."""

import ipywidgets as widgets

from r1nb.rewards.grading import Judge
from r1nb.rewards.registry import columns_of, short_name
from r1nb.views.html import color_of, colored, legend
from r1nb.views.tables import number, table_of


def reward_playground(judge: Judge, completion: str, row: dict) -> widgets.VBox:
    """A widget to edit a completion and its gold; it shows the parsed parts and each score with its reason.

    `row` holds the gold `answer` and any other column that the rewards need.
    """
    text = _area(completion, "completion")
    gold = widgets.Text(value=row["answer"], description="gold")
    shown = widgets.HTML()

    def update(_change=None) -> None:
        lines, scores = [], {}
        for name, reward in judge.rewards.items():
            scores[name], reason = reward.explain(text.value, gold.value, **columns_of(row))
            lines.append([short_name(name), number(scores[name]), number(reward.high, "g"), reason])
        note = "rewards that were not judged count as 0" if None in scores.values() else ""
        lines.append(["weighted total", number(judge.total(scores)), number(judge.best_total, "g"), note])
        table = table_of(lines, ["reward", "score", "of", "why"])
        note = f"<p><i>{legend(text.value, judge.layout)}</i></p>"
        shown.value = colored(text.value, judge.layout) + note + table.to_html()

    for control in (text, gold):
        control.observe(update, names="value")
    update()
    return widgets.VBox([text, gold, shown]).add_class("r1nb-playground")


def group_playground(judge: Judge, completions: list[str], row: dict) -> widgets.VBox:
    """A widget to edit a group of completions to one question; it shows mean, deviation and advantages."""
    import torch

    from r1nb.training.loss import group_advantages

    areas = [_area(text, f"{i}", width="70%") for i, text in enumerate(completions, 1)]
    notes = [widgets.HTML() for _ in areas]
    gold = widgets.Text(value=row["answer"], description="gold")
    summary = widgets.HTML()

    def update(_change=None) -> None:
        scores = [
            {name: r.score(a.value, gold.value, **columns_of(row)) for name, r in judge.rewards.items()}
            for a in areas
        ]
        rewards = torch.tensor([judge.total(each) for each in scores])
        advantages = group_advantages(rewards).tolist()
        for note, each, reward, advantage in zip(notes, scores, rewards, advantages, strict=True):
            bar = "&nbsp;" * round(abs(advantage) * 10)
            bar = f'<span style="background:{color_of(advantage)}">{bar}</span>'
            note.value = f"reward {reward:.3f}<br>advantage {advantage:+.2f} {bar}"
            if unjudged := [short_name(name) for name, score in each.items() if score is None]:
                note.value += f"<br>not judged, counted as 0: {', '.join(unjudged)}"
        summary.value = f"mean {rewards.mean():.3f}, deviation {rewards.std():.3f}" + (
            ": all earn the same, so there is nothing to learn from this group" if rewards.std() == 0 else ""
        )

    for control in (*areas, gold):
        control.observe(update, names="value")
    update()
    pairs = [widgets.HBox(pair) for pair in zip(areas, notes, strict=True)]
    return widgets.VBox([*pairs, gold, summary]).add_class("r1nb-group")


def _area(text: str, description: str, width: str = "95%") -> widgets.Textarea:
    rows = max(2, text.count("\n") + 1)
    return widgets.Textarea(value=text, description=description, rows=rows, layout={"width": width})
