"""Show completions as HTML. They are escaped, so that markup in them is displayed as text."""

import html
import re
from pathlib import Path
from urllib.parse import quote

from r1nb.paths import shown
from r1nb.text.prompts import Layout

NO_MATH = 'class="tex2jax_ignore mathjax_ignore"'  # else Jupyter typesets what is between dollar signs
# Okabe and Ito's blue, green and vermilion, translucent so that they suit light and dark themes. As the
# colour of a text, the blue is lighter, which can be read in both.
TAG, ANSWER, OUTSIDE = "rgba(0,114,178,.30)", "rgba(0,158,115,.30)", "rgba(213,94,0,.30)"
BLOCKS = (OUTSIDE, TAG, "", TAG, OUTSIDE, TAG, ANSWER, TAG, OUTSIDE)  # of a completion split at its tags
BETTER, EVEN, WORSE = "rgb(0,125,195)", "rgb(128,128,128)", "rgb(213,94,0)"
BOX = "border:1px solid rgba(128,128,128,.5);padding:6px;white-space:pre-wrap;line-height:1.4"
TEXT = "line-height:1.35"  # that of a widget is larger
TEXTS = (".html", ".json", ".jsonl", ".md", ".png", ".yaml")  # what JupyterLab shows of a folder of files
LEGEND = "tags blue, answer green, text outside the blocks red"
# Control characters are shown as their Unicode pictures, direction marks and lone surrogates as [U+....].
_SHOWN = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"}
_SHOWN |= {0x7F: "␡"} | {code: f"[U+{code:04X}]" for code in (*range(0x80, 0xA0), *range(0xD800, 0xE000))}
_SHOWN |= {ord(mark): f"[U+{ord(mark):04X}]" for mark in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"}
_SHOWN |= {code: f"[U+{code:04X}]" for code in range(0x2066, 0x206A)}


def visible(text) -> str:
    """A text in which control characters and marks of writing direction are replaced by visible ones."""
    return str(text).translate(_SHOWN)


def escape(text) -> str:
    """A text escaped for HTML, with control characters made visible."""
    return html.escape(visible(text))


class Link:
    """What a file or folder is, and its path; in a notebook, links that JupyterLab opens.

    JupyterLab opens no folder by a link, so the links of a folder are those of the texts in it.
    """

    def __init__(self, name: str, path: Path | str):
        self.name, self.path = name, shown(Path(path))

    def __repr__(self) -> str:
        return f"{self.name}: {self.path}"

    def _repr_html_(self) -> str:
        folder = Path(self.path)
        texts = [f for f in (*folder.glob("*"), *folder.glob("adapter/*.md")) if f.suffix in TEXTS]
        files = ", ".join(_anchor(file, file.relative_to(folder)) for file in sorted(texts))
        opens = f"{escape(self.path)} ({files})" if files else _anchor(folder, folder)
        return f"{escape(self.name)}: {opens}"


def _anchor(path: Path, text) -> str:
    return f'<a href="{quote(path.as_posix())}">{escape(text)}</a>'


def mark(text: str, color: str = "") -> str:
    """A text as HTML with a background colour; white space alone gets none."""
    shown = escape(text)
    return f'<span style="background:{color}">{shown}</span>' if color and text.strip() else shown


def color_of(advantage: float) -> str:
    """The colour of a completion by its advantage; grey for 0 and for NaN (not judged)."""
    return BETTER if advantage > 0 else WORSE if advantage < 0 else EVEN


def colored(text: str, layout: Layout) -> str:
    """A completion as HTML in a box; tags, answer and text outside the blocks have background colours."""
    pieces = re.split(f"({'|'.join(layout.tags)})", text)  # the text between tags, and each tag
    colors = BLOCKS if layout.parse(text) else ("", TAG) * len(pieces)
    body = "".join(map(mark, pieces, colors))
    return f'<div {NO_MATH} dir="ltr" style="{BOX}">{body}</div>'


def legend(text: str, layout: Layout) -> str:
    """The legend for the colours of `colored`, or the reason why the answer could not be read."""
    reason = layout.why_unreadable(text)
    return f"the answer could not be read: {reason}" if reason else LEGEND
