"""The one exception that is meant to be read by the user."""

import difflib
import sys


class UserError(ValueError):
    """A mistake in a setting or a file: one sentence that names the value and the fix."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"r1nb: {self}"]


def did_you_mean(word: str, words) -> str:
    """The end of a sentence about an unknown word: the known one that is like it, or a full stop."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def run_main(main) -> None:
    """Call a module's main with the command line; a UserError becomes the sentence that it ends with."""
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"r1nb: {error}")
