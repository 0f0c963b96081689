"""The exception whose message is written for the user, and helpers to word and print such messages."""

import difflib
import sys
from functools import cache


class UserError(ValueError):
    """A mistake in a setting or a file. The message is one sentence that names the value and the fix."""

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows instead of a traceback."""
        return [f"r1nb: {self}"]


class Interrupted(UserError):  # noqa: N818  # named like KeyboardInterrupt
    """^C ended the training. The message says what was saved."""


def did_you_mean(word: str, words) -> str:
    """The end of a sentence about an unknown word: "; did you mean 'x'?", or "." if no word is similar."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@cache
def say_once(sentence: str) -> None:
    """Print a sentence, unless this process has printed it before."""
    print(sentence)


def run_main(main) -> None:
    """Call a module's `main` with the command-line arguments; print a UserError without a traceback.

    The exit code is then 1, or 130 after ^C, as in a shell.
    """
    try:
        main(*sys.argv[1:])
    except (UserError, KeyboardInterrupt) as error:
        print(
            f"r1nb: {str(error) or 'Interrupted: run it again to resume from what is saved.'}",
            file=sys.stderr,
        )
        sys.exit(130 if isinstance(error, Interrupted | KeyboardInterrupt) else 1)
