"""The one exception that is meant to be read by the user."""


class UserError(ValueError):
    """A mistake in a setting or a file: one sentence that names the value and the fix."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"r1nb: {self}"]
