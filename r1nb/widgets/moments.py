"""A widget that follows one question through a run: its answers before, during and after training."""

from functools import partial

import ipywidgets as widgets

from r1nb.runs.evaluations import MOMENTS
from r1nb.text.prompts import LAYOUTS
from r1nb.views.group import groups_html, head, verdict, with_verdicts
from r1nb.views.html import TEXT, colored, escape
from r1nb.views.tables import MARKS

SAMPLED = "questions sampled in training"
LONGEST = 100  # characters of a question in the list
SHOWN = {"all": {True, False}, "wrong at the end": {False}, "right at the end": {True}}


class Moments(widgets.VBox):
    """Choose a question; the slider moves through the moments at which the policy answered it."""

    def __init__(self):
        wide = {"width": "98%"}
        self.kind = widgets.Dropdown(description="from")
        self.which = widgets.Dropdown(description="show", options=list(SHOWN))
        self.search = widgets.Text(description="with text", placeholder="text in a question")
        self.question = widgets.Dropdown(description="question", layout=wide)
        self.moment = widgets.SelectionSlider(options=["-"], description="when", layout=wide)
        self.answer = widgets.HTML(layout={"max_height": "220px", "overflow": "auto", "width": "100%"})
        choice = widgets.HBox([self.kind, self.which, self.search], layout={"flex_flow": "row wrap"})
        super().__init__([choice, self.question, self.moment, self.answer])
        self.add_class("r1nb-moments")
        self.run, self.seen, self.answers = None, None, {}
        for control, draw in ((self.kind, self._read), (self.which, self._list), (self.search, self._list),
                              (self.question, self._on_question), (self.moment, self._draw)):  # fmt: skip
            control.observe(lambda _change, draw=draw: draw(), names="value")

    def show(self, run) -> None:
        """Show a run's questions and its answers so far. Choices stay; at the end, the slider follows."""
        measured = {split: list(moments) for split, moments in run.evaluation().items()}
        seen = run.folder, run.validation_steps(), measured
        if seen == self.seen:
            return
        self.run, self.seen = run, seen
        kinds = ["validation problems"] if run.validation_steps() else []
        kinds += [f"test problems of {split}" for split in run.evaluation()]
        _offer(self.kind, [*kinds, SAMPLED])
        self._read()

    def _read(self) -> None:
        """Find for each question {moment: (right or not, function that returns the HTML of the answers)}."""
        run, kind, self.answers = self.run, self.kind.value, {}
        if kind == SAMPLED:
            for step, questions in run.sampled_questions().items():
                for question in questions:
                    found = None, partial(_group, run, step, question)
                    self.answers.setdefault(question, {})[f"step {step}"] = found
        elif kind.startswith("test problems of "):
            split = kind.removeprefix("test problems of ")
            for moment, shown in MOMENTS.items():
                self._add(shown, map(vars, run.graded(moment).get(split, [])))
        else:
            for step in run.validation_steps():
                self._add(f"after step {step}" if step else "before", run.validation(step))
        self._list()

    def _add(self, moment: str, answers) -> None:
        for answer in answers:
            found = answer["strict"], partial(_one, self.run, answer)
            self.answers.setdefault(answer["question"], {})[moment] = found

    def _list(self) -> None:
        """List the questions, each with its verdicts in the order of the moments."""
        listed, wanted = [], {None, *SHOWN[self.which.value]}
        for number, (question, moments) in enumerate(self.answers.items(), 1):
            verdicts = [right for right, _ in moments.values()]
            marks = "" if self.kind.value == SAMPLED else "".join(map(MARKS.get, verdicts))
            if verdicts[-1] in wanted and self.search.value.lower() in question.lower():
                listed.append((f"{number}. {marks} {' '.join(question.split())[:LONGEST]}", question))
        _offer(self.question, listed)
        self._on_question()

    def _on_question(self) -> None:
        last = self.moment.value == self.moment.options[-1]
        moments = list(self.answers.get(self.question.value, {})) or ["-"]
        _offer(self.moment, moments)
        if last:
            self.moment.value = moments[-1]
        self._draw()

    def _draw(self) -> None:
        moments = self.answers.get(self.question.value, {})
        _, answer = moments.get(self.moment.value, (None, lambda: "There is no such question yet."))
        said = f"{escape(self.run.name)}, {self.moment.value}"
        self.answer.value = f'<div style="{TEXT}">{said}<br>{answer()}</div>'


def _offer(control, options: list) -> None:
    """Give a control new options; its value stays if it is among them, and else becomes the first."""
    if list(control.options) == options:
        return
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    kept = control.value if control.value in values else next(iter(values), None)
    control.options = options
    control.value = kept


def _one(run, answer: dict) -> str:
    layout = LAYOUTS[run.recipe["data"].get("layout", "reasoning")]
    asked = head(answer["question"], answer["answer"])
    why = ": the right number, but not in the answer block"
    why = why if answer.get("lenient") and answer["strict"] is False else ""
    said = verdict(answer["strict"], answer["cut"]) + why
    return f'<div style="text-align:left">{asked}<br>{said}</div>{colored(answer["completion"], layout)}'


def _group(run, step: int, question: str) -> str:
    log = with_verdicts(run.completions(step), run)
    return groups_html(log[log["question"] == question], run)
