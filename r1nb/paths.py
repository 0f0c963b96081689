"""Paths that hold in a checkout, an editable install and a wheel; and a safe way to write JSON."""

import json
import os
from pathlib import Path

__version__ = "0.2.0"
PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
RECIPES = PACKAGE / "recipes"
LAUNCH = PACKAGE / "launch"  # for several processes
DATA = CHECKOUT / "data" if CHECKOUT else PACKAGE / "_data"  # the wheel carries data/ as _data/
NOTEBOOKS = CHECKOUT / "notebooks" if CHECKOUT else PACKAGE / "_notebooks"


def runs_folder(folder: str) -> Path:
    """The folder of run folders: a relative one belongs to the checkout, else to the current one."""
    return ((CHECKOUT or Path.cwd()) / Path(folder).expanduser()).resolve()


def write_json(path: Path, value) -> None:
    """Whole or not at all: a reader never sees half a file. The last folder is made where it is missing."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)
