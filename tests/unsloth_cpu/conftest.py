"""Unsloth comes first, as it must; it then runs on the CPU."""

import unsloth  # noqa: F401
