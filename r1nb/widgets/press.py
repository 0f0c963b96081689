"""A button that says what happens: it is disabled while its work runs, and shows an error in one sentence."""

import ipywidgets as widgets

from r1nb.errors import UserError, first_line
from r1nb.views.html import WORSE, escape

WHOLE = {"description_width": "initial"}  # else a long label is cut


class Press(widgets.VBox):
    """A button that calls `work()`; under it stands what `work` returns, or its error in one sentence.

    While `work` runs, the button is disabled and shows `busy`.
    """

    def __init__(self, label: str, busy: str, work):
        self.label, self.busy, self.work = label, busy, work
        self.button = widgets.Button(description=label, button_style="primary", layout={"width": "auto"})
        self.said = widgets.HTML()
        self.button.on_click(self.press)
        super().__init__([self.button, self.said])

    def press(self, _button=None) -> None:
        """Do the work, as a click does."""
        self.button.disabled, self.button.description, self.said.value = True, self.busy, ""
        try:
            self.said.value = escape(self.work() or "")
        except Exception as error:
            why = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
            )
            self.said.value = f'<span style="color:{WORSE}">{escape(why)}</span>'
        finally:
            self.button.disabled, self.button.description = False, self.label


def text_box(label: str, value: str) -> widgets.Textarea:
    """A wide box for a text."""
    return widgets.Textarea(value=value, description=label, rows=2, layout={"width": "98%"})


def temperature_slider(value: float, low: float) -> widgets.FloatSlider:
    """A slider for the temperature, from `low` to 2."""
    return widgets.FloatSlider(
        description="temperature", value=value, min=low, max=2, step=0.1, continuous_update=False, style=WHOLE
    )


def messages_of(policy, layout, question: str, max_tokens: int) -> list[dict]:
    """The chat messages of a typed question. Raises UserError if it is blank, or too long for the policy."""
    if not question.strip():
        raise UserError("Write a question first.")
    messages = layout.build_messages(question)
    policy.check_room(messages, max_tokens)
    return messages
