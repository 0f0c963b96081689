"""The outputs of a notebook's cell while it trains: pictures that change in place, or the live inspector.

A kernel cannot know whether its frontend shows widgets, nor whether their messages arrive while a cell is
running. So the panel begins as a picture and a table. A hidden clock in the frontend sends a message every
two seconds. If one arrives in another thread than the training, the inspector takes their place: it is drawn
in that thread, and its controls work at once. At the end the picture and the table are back, and are saved.
"""

import threading
from math import inf

from IPython.display import HTML, Image, display

from r1nb.errors import UserError
from r1nb.runs.run import Run
from r1nb.views.group import groups_html, with_verdicts
from r1nb.views.html import escape
from r1nb.views.plots import png
from r1nb.views.progress import progress
from r1nb.views.strip import strip
from r1nb.widgets.inspector import PLAYING, Inspector, doing

WAITING = "Interrupt the kernel to finish this step, save and stop. The cells below wait until it ends."
BOX = "max-height:420px;overflow:auto"
NOTHING = HTML("")


class Panel:
    """Shows a run in the output of the current cell."""

    def __init__(self, run: Run):
        self.live, self.closed, self.lock = False, False, threading.Lock()
        self.static = [display(NOTHING, display_id=True) for _ in range(3)]  # status, curves, latest group
        self.inspector = Inspector(run=run)
        self.inspector.layout.display = "none"
        self.inspector.clock.observe(self._on_message, names="value")
        answer_at_once(self.inspector)
        self.place = display(self.inspector, display_id=True)

    def _on_message(self, _change) -> None:
        if self.live or threading.current_thread() is threading.main_thread():
            return
        with self.lock:  # not while the pictures are drawn
            if self.closed:
                return
            self.live = True
            for handle in self.static:
                handle.update(NOTHING)
        self.inspector.layout.display = ""
        self.inspector.search.focus()  # this scrolls to the panel

    def draw(self, run: Run) -> None:
        """Draw the run's state; the live inspector draws itself."""
        with self.lock:
            if not self.live:
                clock = self.inspector.clock
                setattr(clock, PLAYING, not getattr(clock, PLAYING))  # it starts when its view exists
                self._draw(run, f"{doing(run)}. {WAITING}")

    def close(self) -> None:
        """Leave the final picture and group, which a saved notebook keeps, and no widget."""
        with self.lock:  # a late message changes nothing
            self.live, self.closed = False, True
        setattr(self.inspector.clock, PLAYING, False)
        self.place.update(NOTHING)
        run = Run(self.inspector.only.folder)
        self._draw(run, f"{progress(run)[1]}. Notebook 04 shows all its steps.")

    def _draw(self, run: Run, said: str) -> None:
        status, curves, group = self.static
        said = f"<b>{escape(run.label)}</b>: {escape(said)}"
        status.update(HTML(f'<div style="text-align:left">{said}</div>'))
        curves.update(Image(png(strip(run)[0])))
        group.update(HTML(_latest_group(run)))


def answer_at_once(widget) -> None:
    """Let the messages of a widget and its children reach the subshell to which the frontend sends them.

    ipykernel 7.4 sends them to the shell that last published on their comm instead (its comm/comm.py). While
    a cell trains, that shell is busy until the cell ends. Other versions do not have this method.
    """
    widget.comm._reply_subshell_for = lambda _data, sent_to: sent_to
    for child in getattr(widget, "children", ()):
        answer_at_once(child)


def _latest_group(run: Run) -> str:
    """The group of the latest step whose rewards differ most, best completion first; "" before the first."""
    step = run.logged(inf)
    if step is None:
        return ""
    try:
        log = with_verdicts(run.completions(step), run)
    except UserError as error:  # the file is being written
        return escape(error)
    widest = log.groupby("question")["total"].std().fillna(0).idxmax()
    shown = groups_html(log[log["question"] == widest], run)
    return f'<div style="{BOX}"><p>Step {step}, one group:</p>{shown}</div>'
