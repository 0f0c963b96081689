"""The values that each file in a run folder must have: a file that lacks one counts as damaged."""

import contextlib
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from r1nb.errors import UserError

NUMBER = int | float | None  # the values in a line of the history, except these texts
TEXTS = {"alarm": str, "sentence": str}
# The columns of the completion log that are always there, besides the rewards.
COLUMNS = {"step": int, "prompt": str, "completion": str, "advantage": float}
TWO = Field(min_length=2, max_length=2)
Interval = Annotated[list[float], TWO] | None


@with_config(extra="allow")
class Environment(TypedDict, total=False):
    """environment.json."""

    rewards: dict[str, Annotated[list[float | None], TWO]]
    processes: int
    parent: str


@with_config(extra="allow")
class Summary(TypedDict):
    """What grading.summarize returns, of a split at a moment in evaluation.json."""

    n: int
    strict: float | None
    strict_interval: Interval
    lenient: float | None
    lenient_interval: Interval
    format: float | None
    format_interval: Interval
    cut: float
    tokens: float
    rewards: dict[str, float | None]


@with_config(extra="allow")
class Answer(TypedDict):
    """A grading.Graded in a file of validation/."""

    question: str
    answer: str
    completion: str
    cut: bool
    strict: bool | None


@with_config(extra="allow")
class Rejected(TypedDict):
    """rejection.json."""

    problems: int
    samples: int
    kept: int
    solved: int
    dropped: dict[str, int]


@cache
def parse_recipe(path: Path, stamp: tuple) -> dict:
    """The recipe.yaml of a run; with another `stamp` (time, size, inode) it is parsed again.

    Raises UserError if it is damaged, or lacks the values that every run has.
    """
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        recipe = yaml.safe_load(path.read_bytes())
        weights = recipe["rewards"].values()
        whole = isinstance(recipe["name"], str) and "dataset" in recipe["data"]
        whole = whole and isinstance(recipe["grpo"]["max_steps"], int)
        if whole and all(isinstance(weight, int | float) for weight in weights):
            return recipe
    where = f"{path.parent.parent.name}/{path.parent.name}"
    raise UserError(
        f"{where}/recipe.yaml is not a recipe, or it is damaged: restore it, or move that folder away."
    )
