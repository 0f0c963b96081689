"""A widget that samples a group of completions of one question, and shows which are right."""

from dataclasses import replace

import ipywidgets as widgets
import traitlets
from datasets import Dataset

from r1nb.evaluation.accuracy import sample_groups
from r1nb.training.one_step import advantages_of
from r1nb.views.group import group_facts, group_html
from r1nb.views.html import TEXT
from r1nb.widgets.press import WHOLE, Press, messages_of, temperature_slider, text_box

MOST = 32  # completions at once
COLDEST = 0.1  # at temperature 0 all completions of a group are the same


class SampleGroup(widgets.VBox):
    """Sample completions of the question of a dataset's `row`, or of another one, with the recipe's rewards.

    `graded` holds the latest group, `row` its question and gold, and `drawn` counts the groups so far.
    """

    drawn = traitlets.Int()

    def __init__(self, policy, recipe, row: dict):
        self.policy, self.recipe, self.given_row = policy, recipe, row
        self.graded, self.row, sampling, size = [], row, recipe.sampling, recipe.group_size
        self.question = text_box("question", row["question"])
        self.gold = widgets.Text(description="right answer", value=row["answer"], style=WHOLE)
        self.temperature = temperature_slider(sampling.temperature, low=COLDEST)
        self.count = widgets.IntSlider(description="completions", value=size, min=2, max=max(size, MOST))
        self.sample = Press("Sample a group", "Sampling ...", self._sample)
        self.facts, self.completions = widgets.HTML(), widgets.HTML()
        controls = widgets.HBox([self.gold, self.temperature, self.count], layout={"flex_flow": "row wrap"})
        super().__init__([self.question, controls, self.sample, self.facts, self.completions])
        self.add_class("r1nb-sample")

    def put(self, question: str, gold: str) -> None:
        """Put another question and its right answer into the boxes."""
        self.question.value, self.gold.value = question, gold

    def _sample(self) -> None:
        question, recipe, count = self.question.value, self.recipe, self.count.value
        row = {"question": question, "answer": self.gold.value}
        row["prompt"] = messages_of(self.policy, recipe.layout, question, recipe.sampling.max_tokens)
        if question == self.given_row["question"]:  # the other columns belong to it
            row = self.given_row | row
        sampling = replace(
            recipe.sampling, temperature=self.temperature.value, seed=recipe.sampling.seed + self.drawn
        )
        judge = recipe.judge(row)
        (graded,) = sample_groups(self.policy, Dataset.from_list([row]), judge, sampling, count, count)
        advantages = advantages_of([judge.total(g.rewards) for g in graded], recipe)
        self.facts.value = f'<div style="{TEXT}">{group_facts(graded)}</div>'
        self.completions.value = f'<div style="{TEXT}">{group_html(graded, judge, advantages)}</div>'
        self.graded, self.row = graded, row
        self.drawn += 1
