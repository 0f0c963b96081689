"""A widget that takes a step of GRPO on one group, and shows how much likelier each completion became."""

import math

import ipywidgets as widgets

from r1nb.rewards.grading import Graded
from r1nb.text.prompts import Layout
from r1nb.training.one_step import GroupSteps, advantages_of, group_of
from r1nb.views.group import ROW_CELL, TABLE, bar, verdict
from r1nb.views.html import EVEN, TEXT, color_of, colored
from r1nb.widgets.press import Press
from r1nb.widgets.sample import SampleGroup

FULL = 110  # pixels of probability 1
EXPLAINED = (
    "The two bars are the probability of a token, averaged over the completion (geometric mean): grey before "
    "the step, blue (likelier) or orange (less likely) after it. <i>×</i> is how many times as likely the "  # noqa: RUF001
    "whole completion became, and log p its log-probability in nats. All completions share the weights: one "
    "with an advantage above 0 can become less likely if others change more."
)
NOTHING = "All rewards are equal, so each advantage is 0: from this group nothing is learned."
MOMENTUM = " (The optimizer's momentum from earlier steps still moves the weights.)"


class OneStep(widgets.VBox):
    """Sample a group, edit its rewards, and take optimizer steps on it with the recipe's own trainer.

    It changes the weights of `policy`; Undo takes back one step at a time. Raises UserError if the policy has
    no adapter to train.
    """

    def __init__(self, policy, recipe, row: dict):
        self.policy, self.recipe, self.steps = policy, recipe, GroupSteps(policy, recipe)
        self.seen = []  # log-probabilities of the completions, before the steps on this group and after each
        self.sampler = SampleGroup(policy, recipe, row)
        self.sampler.count.layout.display = self.sampler.completions.layout.display = "none"
        self.step = Press("Take one GRPO step on this group", "Training ...", self._step)
        self.undo = Press("Undo", "Undoing ...", self._undo)
        self.undo.button.button_style = ""
        self.said, self.rows = widgets.HTML(), widgets.VBox()
        self.pressed = widgets.HBox([self.step, self.undo], layout={"display": "none"})
        super().__init__([self.sampler, self.pressed, self.said, self.rows])
        self.add_class("r1nb-one-step")
        self.sampler.observe(self._on_group, names="drawn")

    def _on_group(self, _change) -> None:
        sampler, layout = self.sampler, self.recipe.layout
        prompt, temperature = sampler.row["prompt"], sampler.temperature.value
        self.group = group_of(self.policy, prompt, sampler.graded, temperature)
        judge, self.rewards, self.notes, rows = self.recipe.judge(sampler.row), [], [], []
        for g in sampler.graded:
            reward = widgets.FloatText(
                value=judge.total(g.rewards), step=0.5, description="reward", layout={"width": "170px"},
                style={"description_width": "60px"},
            )  # fmt: skip
            reward.observe(self._on_reward, names="value")
            note = widgets.HTML()
            text = widgets.HTML(colored(g.completion, layout), layout={"flex": "1", "min_width": "0"})
            left = widgets.VBox([reward, note], layout={"width": "330px", "flex": "none"})
            rows.append(widgets.HBox([left, text], layout={"margin": "0 0 8px 0"}))
            self.rewards.append(reward)
            self.notes.append(note)
        self.rows.children = rows
        self.pressed.layout.display = ""
        self.seen = [self.steps.log_probabilities(self.group)]
        self._draw()

    def _on_reward(self, _change) -> None:
        self.seen = self.seen[-1:]  # the bars of the last step do not belong to these rewards
        self._draw()

    def _step(self) -> None:
        self.steps.step(self.group, [reward.value for reward in self.rewards])
        self.seen.append(self.steps.log_probabilities(self.group))
        self._draw()

    def _undo(self) -> None:
        self.steps.undo()
        self.seen = self.seen[:-1] or [self.steps.log_probabilities(self.group)]
        self._draw()

    def _draw(self) -> None:
        scores, graded = [reward.value for reward in self.rewards], self.sampler.graded
        advantages = advantages_of(scores, self.recipe)
        before, after = self.seen[-2:] if len(self.seen) > 1 else (self.seen[0], None)
        taken, rate = self.steps.taken, self.recipe.grpo["learning_rate"]
        said = f"<b>Steps taken: {taken}</b>, each at the recipe's peak learning rate, {rate:g}. {EXPLAINED}"
        if len(set(scores)) == 1:
            said += f"<br><b>{NOTHING}</b>{MOMENTUM if taken else ''}"
        self.said.value = f'<div style="{TEXT}">{said}</div>'
        self.undo.layout.visibility = "visible" if taken else "hidden"
        changes = zip(self.notes, effects(graded, advantages, before, after), strict=True)
        for note, effect in changes:
            note.value = f'<div style="{TEXT}">{effect}</div>'


def step_html(graded: list[Graded], advantages, before, after, layout: Layout) -> str:
    """A step on a group as HTML: beside each completion its advantage and its probability; see effects."""
    rows = "".join(
        f'<tr><td style="{ROW_CELL};width:330px">{effect}</td>'
        f'<td style="{ROW_CELL};white-space:normal">{colored(g.completion, layout)}</td></tr>'
        for g, effect in zip(graded, effects(graded, advantages, before, after), strict=True)
    )
    return f'<p>{EXPLAINED}</p><table style="{TABLE}"><tbody>{rows}</tbody></table>'


def effects(graded: list[Graded], advantages: list[float], before, after=None) -> list[str]:
    """For each completion, as HTML: verdict, advantage, and its probability before and after a step.

    `before` and `after` are log-probabilities (nats) of the whole completions; without `after` there was no
    step yet.
    """
    shown, largest = [], max(map(abs, advantages))
    for i, g in enumerate(graded):
        count = len(g.ids) + (not g.cut)  # with the end token
        lines = [
            f"{bar(advantages[i], largest)} advantage <b>{advantages[i]:+.2f}</b> {verdict(g.strict, g.cut)}",
            _chance(before[i] / count, EVEN, "before" if after else "now"),
        ]
        if after:
            change = after[i] - before[i]
            lines.append(_chance(after[i] / count, color_of(change), "after"))
            likelier = f"<b>× {math.exp(min(change, 50)):.3g}</b>"  # noqa: RUF001
            lines.append(f"{likelier} for the whole, log p {before[i]:.2f} → {after[i]:.2f}")
        shown.append("<br>".join(lines))
    return shown


def _chance(logp: float, color: str, moment: str) -> str:
    """A bar for the probability of a token, of which `logp` is the logarithm."""
    style = f"display:inline-block;height:9px;width:{round(FULL * math.exp(logp))}px;background:{color}"
    frame = f"display:inline-block;width:{FULL}px;border-left:1px solid {EVEN}"
    return f'<span style="{frame}"><span style="{style}"></span></span> {math.exp(logp):.1%} {moment}'
