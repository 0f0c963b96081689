"""The class Reward, which wraps a function that scores one completion for TRL; find rewards by name."""

import contextlib
import copy
import importlib
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from math import inf

from r1nb.errors import UserError, did_you_mean
from r1nb.text.prompts import REASONING, completion_text

# The rewards of r1nb, by the module of this folder that defines them.
SHIPPED = {
    "five": ["correctness_reward_func", "int_reward_func", "strict_format_reward_func",
             "soft_format_reward_func", "xmlcount_reward_func"],
    "r1": ["r1_format_reward_func", "countdown_reward_func"],
    "mathematics": ["math_reward_func"],
    "lenient": ["last_number_reward_func"],
    "reasoning": ["steps_reward_func", "language_reward_func", "overlong_reward_func"],
    "judge": ["judge_reward_func"],
    "gym": ["gym_reward_func"],
    "demo": ["demo_correctness_reward_func", "demo_int_reward_func", "demo_strict_format_reward_func",
             "demo_soft_format_reward_func", "demo_xmlcount_reward_func"],
}  # fmt: skip
# Columns of these names cannot be used: TRL passes arguments so named, or gives the columns a meaning.
RESERVED = ("self", "prompts", "completion", "completions", "completion_ids", "trainer_state", "log_extra",
            "log_metric", "environments", "image", "images")  # fmt: skip
OWN_FILE = "_r1nb_own_"  # begins the names of modules that are files of the user (rewards.own)
LARGEST = 1e18  # of a score: TRL computes with the squares of scores in float32
_OWN: dict[str, "Reward"] = {}  # the rewards that the user defined, by name


@dataclass(frozen=True, eq=False)
class Reward:
    """A reward function as TRL calls it: it takes lists and returns a float or None for each completion.

    None means that a completion could not be judged. TRL leaves it out of this reward's mean, but counts it
    as 0 in the sum of several rewards.

    `function(text, answer, ...)` scores one completion's text against the gold answer, between `low` and
    `high`. Each further parameter is named after an option (language, judge_url, ...; `bind` sets options) or
    else after a column of the dataset. With `block`, the function gets the text of the answer block instead
    of the whole completion, and a completion without an answer block earns 0.0.
    """

    function: Callable
    high: float
    low: float = 0.0
    judges: str = ""  # "answer" or "format": evaluation may use it to judge this
    block: bool = False
    threads: int = 1
    library: str = ""  # it must be installed
    options: dict = field(default_factory=dict)
    name: str = ""  # in recipes and logs, if it is not the function's
    end_tokens: tuple[int, ...] = ()  # if set, it logs each completion's gold, length and truncation

    @property
    def __name__(self) -> str:  # TRL names its metrics after it
        return self.name or self.function.__name__

    @property
    def __doc__(self) -> str:
        return self.function.__doc__ or ""

    @property
    def needs(self) -> list[str]:
        """The columns that it requires, apart from the gold answer."""
        parameters = _parameters(self.function).items()
        return [name for name, required in parameters if required and name not in self.options]

    @property
    def reads(self) -> set[str] | None:
        """The columns that it uses if the dataset has them, with the gold answer; None: all of them."""
        return {"answer", *_parameters(self.function)} - set(RESERVED)

    @property
    def used_options(self) -> dict:
        """The options that the function, or the parsing of its answer block, uses."""
        names = {*_parameters(self.function), *(["layout"] if self.block else [])}
        return {name: value for name, value in self.options.items() if name in names}

    def bind(self, **options) -> "Reward":
        """The same reward with options set, as in math_reward_func.bind(layout=THINK)."""
        return replace(self, options=self.options | options)

    def explain(self, text: str, /, answer: str = "", **columns) -> tuple[float | None, str]:
        """Score one completion: (score, the reason in words)."""
        if missing := [name for name in self.needs if columns.get(name) is None]:
            raise UserError(
                f"{self.__name__} needs {' and '.join(missing)}: a column of the dataset, or an option that "
                f".bind({missing[-1]}=...) sets; the columns are: {', '.join(sorted(columns)) or 'none'}."
            )
        values = columns | self.options
        if self.block:
            text, problem = values.get("layout", REASONING).read_answer(text)
            if problem:
                return 0.0, problem
        known = {name: values[name] for name in _parameters(self.function) if name in values}
        if _ships(self.function):
            result = self.function(text, answer, **known)
        else:
            with in_words(f"{self.__name__} failed on {text!r:.60}", ": correct the function."):
                result = self.function(text, answer, **copy.deepcopy(known))  # it may change its arguments
        score, reason = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
        return self._number(score, text), reason

    def _number(self, score, text: str) -> float | None:
        """A score as a float; raises UserError if it is neither None nor a number up to LARGEST."""
        if score is None:
            return None
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
            one = not isinstance(score, str | bytes) and not getattr(score, "ndim", 0)
            if one and abs(number := float(score)) <= LARGEST:
                return number
        raise UserError(
            f"{self.__name__} returned {score!r:.60} for {text!r:.60}: it must return a finite number "
            f"(at most {LARGEST:g}), or a pair (number, reason), or None if it cannot judge the completion."
        )

    def score(self, text: str, /, answer: str = "", **columns) -> float | None:
        """The score of one completion."""
        return self.explain(text, answer, **columns)[0]

    def __call__(self, completions, answer=None, log_extra=None, **columns) -> list[float | None]:
        """Score a batch, with TRL's signature; completions are strings or chat messages."""
        count = len(completions)
        golds = [""] * count if answer is None else answer
        if isinstance(golds, str) or len(golds) != count:
            raise UserError(f"answer has {len(golds)} golds for {count} completions: give one gold for each.")
        self._log_completions(golds, log_extra, columns)
        lists = {k: v for k, v in columns.items() if isinstance(v, list) and len(v) == count}
        if "prompt" in self.reads and "prompts" in lists:  # TRL leaves out the column of this name
            lists.setdefault("prompt", lists["prompts"])

        def one(i: int) -> float | None:
            gold = "" if golds[i] is None else str(golds[i])
            row = {name: values[i] for name, values in lists.items()}
            return self.score(completion_text(completions[i]), gold, **row)

        if self.threads > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                return list(pool.map(one, range(count)))
        return [one(i) for i in range(count)]

    def _log_completions(self, golds, log_extra, columns: dict) -> None:
        if self.end_tokens and log_extra:
            tokens = columns["completion_ids"]
            log_extra(
                "question", [p if isinstance(p, str) else str(p[-1]["content"]) for p in columns["prompts"]]
            )
            log_extra("answer", list(golds))
            log_extra("tokens", [len(ids) for ids in tokens])
            log_extra("cut", [not ids or ids[-1] not in self.end_tokens for ids in tokens])


@contextlib.contextmanager
def in_words(what: str, end: str):
    """Turn an error of the user's code into a UserError: `what` happened, (the error), `end`."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{what} ({type(error).__name__}: {error}){end}") from error


@cache
def _parameters(function: Callable) -> dict[str, bool]:
    """The parameters after text and answer, and whether each is required."""
    _text, _answer, *others = inspect.signature(function).parameters.values()
    return {p.name: p.default is p.empty for p in others if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def _ships(function: Callable) -> bool:
    return str(function.__module__).startswith("r1nb.rewards.")


def reward(high: float, low: float = 0.0, **fields):
    """Make `function(text, answer, ...)` a Reward that recipes can name.

    The function returns a number, or a number and the reason in words. None instead of the number means that
    the completion could not be judged. `fields` sets more fields of Reward: judges, block, threads, library.
    Raises UserError if the function is named like a reward that ships, unless a recipe names its file.
    """

    def register(function: Callable) -> Reward:
        made, name = Reward(function, high, low, **fields), function.__name__
        if len(inspect.signature(function).parameters) < 2:
            raise UserError(f"{name} takes too few arguments: write def {name}(text, answer).")
        if made.judges not in ("", "answer", "format"):
            raise UserError(f"judges = {made.judges!r} of {name} is unknown: use 'answer' or 'format'.")
        if not (isinstance(high, int | float) and isinstance(low, int | float) and low < high < inf):
            raise UserError(
                f"high = {high!r}, low = {low!r} of {name}: give two finite numbers, with high above low."
            )
        if not _ships(function) and not str(function.__module__).startswith(OWN_FILE):
            if name in shipped_names():
                raise UserError(f"{name} is a reward that ships with r1nb: give yours another name.")
            _OWN[name] = made
        return made

    return register


@contextlib.contextmanager
def defined(reward: Reward):
    """Let recipes name a reward inside the block; afterwards the names mean what they meant before."""
    before = dict(_OWN)
    _OWN[reward.__name__] = reward
    try:
        yield
    finally:
        _OWN.clear()
        _OWN.update(before)


def is_own(name: str) -> bool:
    """Whether a reward's name begins with a file or a module of the user (rewards.own)."""
    return ":" in name


def shipped_names() -> list[str]:
    """The names of the rewards that ship with r1nb."""
    return [name for names in SHIPPED.values() for name in names]


def reward_names() -> list[str]:
    """The names that a recipe can use: r1nb's own rewards, then those defined with @reward so far."""
    return list(dict.fromkeys(shipped_names() + list(_OWN)))


def find_reward(name: str) -> Reward:
    """Find a reward by its function's name, the user's own first; raises UserError if there is none.

    A name such as my_rewards.py:brief or my_package.rewards:brief executes that file or module.
    """
    if is_own(name):
        return importlib.import_module("r1nb.rewards.own").load_own(name)
    if name in _OWN:
        return _OWN[name]
    for module, names in SHIPPED.items():
        if name in names:
            return getattr(importlib.import_module(f"r1nb.rewards.{module}"), name)
    known = did_you_mean(name, reward_names())
    raise UserError(f"Unknown reward {name!r}{known} Define your own with @reward before you use it.")


def columns_of(row: dict) -> dict:
    """A row's columns as a reward takes them, without the gold; there is no completion, so no token ids."""
    return {name: value for name, value in row.items() if name != "answer"} | {"completion_ids": []}


def short_name(name: str) -> str:
    """A reward function's name without its ending, for tables and legends."""
    return name.removesuffix("_func").removesuffix("_reward")
