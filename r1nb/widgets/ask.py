"""A widget to ask a policy a question: answers of the base model beside those of the adapter."""

from dataclasses import replace

import ipywidgets as widgets

from r1nb.recipes.settings import Sampling
from r1nb.text.prompts import Layout, format_prompt
from r1nb.views.html import LEGEND, NO_MATH, TEXT, colored, escape
from r1nb.views.tables import CUT_OFF
from r1nb.widgets.press import Press, messages_of, temperature_slider, text_box

MOST = 8  # answers at once


class Ask(widgets.VBox):
    """Ask `question`, or another one: each press of the button draws new answers.

    `sampling` gives the most tokens of an answer, top_p, and the temperature at the start; at temperature 0
    the answer is greedy. A policy without an adapter has one column.
    """

    def __init__(self, policy, layout: Layout, sampling: Sampling, question: str = ""):
        self.policy, self.reply_layout, self.sampling = policy, layout, sampling
        self.question = text_box("question", question)
        self.temperature = temperature_slider(sampling.temperature, low=0)
        self.count = widgets.IntSlider(description="answers", value=1, min=1, max=MOST)
        self.ask = Press("Ask", "Answering ...", self._ask)
        self.whole = widgets.Checkbox(description="show the whole prompt", value=False, indent=False)
        self.prompt, self.answers = widgets.HTML(), widgets.HTML()
        for control in (self.question, self.whole):
            control.observe(self._show_prompt, names="value")
        controls = widgets.HBox([self.temperature, self.count], layout={"flex_flow": "row wrap"})
        super().__init__([self.question, controls, self.ask, self.whole, self.prompt, self.answers])
        self.add_class("r1nb-ask")

    def _ask(self) -> str:
        messages = messages_of(self.policy, self.reply_layout, self.question.value, self.sampling.max_tokens)
        sampling = replace(self.sampling, temperature=self.temperature.value)
        greedy = not sampling.temperature
        prompts = [messages] * (1 if greedy else self.count.value)
        columns = []
        for side, adapter in self.policy.sides.items():
            completions = self.policy.generate(prompts, sampling, adapter=adapter)
            shown = "".join(map(self._answer, completions))
            columns.append(f'<div style="flex:1;min-width:0"><b>{side}</b>{shown}</div>')
        self.answers.value = (
            f'<div style="{TEXT}"><b>{escape(self.question.value)}</b>'
            f'<div style="display:flex;gap:12px">{"".join(columns)}</div><i>{LEGEND}</i></div>'
        )
        return (
            "At temperature 0 all answers are the same: one is shown."
            if greedy and self.count.value > 1
            else ""
        )

    def _answer(self, completion) -> str:
        length = f"{len(completion.ids)} tokens{CUT_OFF * completion.cut}"
        shown = colored(completion.text, self.reply_layout)
        return f'<div style="margin:0 0 8px 0">{shown}<small>{length}</small></div>'

    def _show_prompt(self, _change=None) -> None:
        messages = self.reply_layout.build_messages(self.question.value)
        text = escape(format_prompt(self.policy.tokenizer, messages)) if self.whole.value else ""
        shown = f'<pre {NO_MATH} style="white-space:pre-wrap;line-height:1.35">{text}</pre>'
        self.prompt.value = shown if text else ""
