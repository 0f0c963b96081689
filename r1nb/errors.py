"""The one exception that is meant to be read by the user."""

import difflib
import sys


class UserError(ValueError):
    """A mistake in a setting or a file: one sentence that names the value and the fix."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"r1nb: {self}"]


class Interrupted(UserError):  # noqa: N818  # as KeyboardInterrupt
    """^C ended the training; the sentence says what is kept."""


def did_you_mean(word: str, words) -> str:
    """The end of a sentence about an unknown word: the known one that is like it, or a full stop."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def first_line(error: Exception) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run_main(main) -> None:
    """Call a module's main with the command line; a UserError becomes the sentence that it ends with.

    The exit code is then 1, and 130 after ^C, as a shell has it.
    """
    try:
        main(*sys.argv[1:])
    except (UserError, KeyboardInterrupt) as error:
        print(
            f"r1nb: {str(error) or 'Interrupted: run it again to resume from what is saved.'}",
            file=sys.stderr,
        )
        sys.exit(130 if isinstance(error, Interrupted | KeyboardInterrupt) else 1)
