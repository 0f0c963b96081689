"""Paths that work in a checkout, an editable install and a wheel, and a safe way to write JSON."""

import json
import os
from pathlib import Path

__version__ = "0.2.0"
PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
RECIPES = PACKAGE / "recipes"
LAUNCH = PACKAGE / "launch"  # configurations of accelerate launch, for several processes
DATA = CHECKOUT / "data" if CHECKOUT else PACKAGE / "_data"  # the wheel contains data/ as _data/
NOTEBOOKS = CHECKOUT / "notebooks" if CHECKOUT else PACKAGE / "_notebooks"


def runs_folder(folder: str) -> Path:
    """The folder of run folders. A relative path starts at the checkout, or else at the current folder."""
    return ((CHECKOUT or Path.cwd()) / Path(folder).expanduser()).resolve()


def write_json(path: Path, value) -> None:
    """Write a JSON file atomically: a reader never sees half a file.

    The file's folder is created if it does not exist, but not the folders above it.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)
