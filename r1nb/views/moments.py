"""A widget that follows one question through a run: its answers before, during and after training."""

from functools import partial

import ipywidgets as widgets

from r1nb.runs.evaluations import MOMENTS
from r1nb.text.prompts import LAYOUTS
from r1nb.views.group import groups_html, head, verdict, with_verdicts
from r1nb.views.html import TEXT, colored

SAMPLED = "questions sampled in training"
LONGEST = 100  # characters of a question in the list


class Moments(widgets.VBox):
    """Choose a question; the slider moves through the moments at which the policy answered it."""

    def __init__(self):
        wide = {"width": "98%"}
        self.kind = widgets.Dropdown(description="from")
        self.question = widgets.Dropdown(description="question", layout=wide)
        self.moment = widgets.SelectionSlider(options=["-"], description="when", layout=wide)
        self.answer = widgets.HTML(layout={"max_height": "220px", "overflow": "auto", "width": "100%"})
        super().__init__([self.kind, self.question, self.moment, self.answer])
        self.add_class("r1nb-moments")
        self.run, self.answers = None, {}
        for control, draw in ((self.kind, self._on_kind), (self.question, self._on_question),
                              (self.moment, self._on_moment)):  # fmt: skip
            control.observe(draw, names="value")

    def show(self, run) -> None:
        """Show the questions of a run; the answers are read when a list is chosen."""
        self.run = run
        kinds = ["validation problems"] if run.validation_steps() else []
        kinds += [f"test problems of {split}" for split in run.evaluation()]
        self.kind.options = [*kinds, SAMPLED]
        self.kind.index = 0
        self._on_kind()

    def _on_kind(self, _change=None) -> None:
        self.answers = self._read(self.kind.value) if self.kind.value else {}
        shown = {f"{i}. {' '.join(q.split())[:LONGEST]}": q for i, q in enumerate(self.answers, 1)}
        self.question.options = list(shown.items())
        self.question.index = 0 if shown else None
        self._on_question()

    def _read(self, kind: str) -> dict:
        """{question: {moment: function that returns the HTML of the answers}}."""
        run, found = self.run, {}
        if kind == SAMPLED:
            for step, questions in run.sampled_questions().items():
                for question in questions:
                    found.setdefault(question, {})[f"step {step}"] = partial(_group, run, step, question)
            return found
        if kind.startswith("test problems of "):
            split = kind.removeprefix("test problems of ")
            graded = {shown: run.graded(moment).get(split, []) for moment, shown in MOMENTS.items()}
            records = {shown: [vars(g) for g in answers] for shown, answers in graded.items()}
        else:
            records = {f"after step {step}": run.validation(step) for step in run.validation_steps()}
        for moment, answers in records.items():
            for answer in answers:
                found.setdefault(answer["question"], {})[moment] = partial(_one, run, answer)
        return found

    def _on_question(self, _change=None) -> None:
        moments = list(self.answers.get(self.question.value, {}))
        self.moment.options = moments or ["-"]
        self.moment.value = self.moment.options[-1]
        self._on_moment()

    def _on_moment(self, _change=None) -> None:
        answer = self.answers.get(self.question.value, {}).get(self.moment.value)
        shown = answer() if answer else "The run has no answers of this kind yet."
        self.answer.value = f'<div style="{TEXT}">{shown}</div>'


def _one(run, answer: dict) -> str:
    layout = LAYOUTS[run.recipe["data"].get("layout", "reasoning")]
    asked = head(answer["question"], answer["answer"])
    said = verdict(answer["strict"], answer["cut"])
    return f'<div style="text-align:left">{asked}<br>{said}</div>{colored(answer["completion"], layout)}'


def _group(run, step: int, question: str) -> str:
    log = with_verdicts(run.completions(step), run)
    return groups_html(log[log["question"] == question], run)
