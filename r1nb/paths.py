"""Paths that work in a checkout, an editable install and a wheel; write and read JSON safely."""

import contextlib
import json
import os
from functools import cache
from pathlib import Path

from r1nb.errors import UserError, first_line, say_once

__version__ = "0.2.0"
PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
RECIPES = PACKAGE / "recipes"
LAUNCH = PACKAGE / "launch"  # configurations of accelerate launch, for several processes
DATA = CHECKOUT / "data" if CHECKOUT else PACKAGE / "_data"  # the wheel contains data/ as _data/
NOTEBOOKS = CHECKOUT / "notebooks" if CHECKOUT else PACKAGE / "_notebooks"


def runs_folder(folder: str) -> Path:
    """The folder of run folders. A relative path starts at the checkout, or else at the current folder."""
    return ((CHECKOUT or Path.cwd()) / user_path(folder)).resolve()


def user_path(text) -> Path:
    """The path that a user wrote, with ~ expanded; raises UserError if no file can have this name."""
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        why = getattr(error, "strerror", None) or first_line(error).rstrip(".")
        raise UserError(
            f"{str(text)[:60]!r} cannot be the name of a file or folder ({why}): correct it."
        ) from None
    return path


def shown(path: Path) -> str:
    """A path as it opens from the current folder: relative if it is below it or beside it, else absolute."""
    try:
        relative = os.path.relpath(path)
    except (ValueError, OSError):  # on another drive of Windows; the current folder was deleted
        return str(path)
    return str(path) if relative.startswith(os.path.join("..", "..")) else relative


def write_json(path: Path, value) -> None:
    """Write a JSON file atomically: a reader never sees half a file.

    The file's folder is created if it does not exist, but not the folders above it.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path, otherwise, shape=None):
    """The value in a JSON file; `otherwise` if there is no file, or if it is torn, which is said once.

    A value that is not of `shape`, a type as in an annotation, counts as torn. Its default is the type of
    `otherwise`.
    """
    from pydantic import ValidationError

    try:
        return _checker(shape or type(otherwise))(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return otherwise
    except ValidationError as error:
        mistake = error.errors()[0]
        why = f"{'.'.join(map(str, mistake['loc'])) or 'its value'}: {mistake['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        why = first_line(error)
    say_once(f"{path} cannot be read ({why}), so what it held is missing here.")
    return otherwise


@cache
def _checker(shape):
    from pydantic import TypeAdapter

    return TypeAdapter(shape).validate_python
