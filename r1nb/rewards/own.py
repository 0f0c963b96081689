"""Reward functions of your own, which a recipe names by file or module: my_rewards.py:brief."""

import asyncio
import contextlib
import hashlib
import importlib.util
import inspect
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from r1nb.errors import UserError, did_you_mean
from r1nb.rewards.registry import Reward
from r1nb.text.prompts import completion_text

FOLDER = "rewards"  # in a run folder: copies of the files that its recipe names


@dataclass(frozen=True, eq=False)
class TrlReward(Reward):
    """A function with TRL's own signature, f(prompts, completions, **columns), sync or async.

    Its range is unknown: `low` and `high` are infinite. It is called like TRL calls it: completions are lists
    with one chat message. Without **columns it gets only the arguments that it names.
    """

    high: float = inf
    low: float = -inf

    @property
    def needs(self) -> list[str]:
        return []

    @property
    def reads(self) -> set[str] | None:
        parameters = inspect.signature(self.function).parameters.values()
        return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else {p.name for p in parameters}

    @property
    def used_options(self) -> dict:
        return {}

    def explain(self, text: str, /, answer: str = "", **columns) -> tuple[float | None, str]:
        return self([text], [answer], **{name: [value] for name, value in columns.items()})[0], ""

    def __call__(self, completions, answer=None, log_extra=None, **columns) -> list[float | None]:
        self._log_completions(answer, log_extra, columns)
        texts = [completion_text(completion) for completion in completions]
        messages = [[{"role": "assistant", "content": text}] for text in texts]
        prompts = columns.pop("prompts", None) or columns.pop("prompt", None) or [[] for _ in messages]
        given = columns | {"prompts": prompts, "completions": messages, "answer": answer}
        given = {"trainer_state": None, "log_extra": log_extra or (lambda *_: None)} | given
        if self.reads is not None:
            given = {name: given[name] for name in self.reads if name in given}
        with _in_words(f"{self.__name__} failed on {texts[:1]!r:.80}", ": correct it."):
            scores = self.function(**given)
            if inspect.isawaitable(scores):
                with ThreadPoolExecutor(1) as thread:  # a notebook has an event loop of its own
                    scores = thread.submit(asyncio.run, _wait(scores)).result()
            scores = list(scores)
        if len(scores) != len(texts):
            count = f"{len(scores)} scores for {len(texts)} completions"
            raise UserError(f"{self.__name__} returned {count}: return one for each.")
        return [self._number(score, text) for score, text in zip(scores, texts, strict=True)]


async def _wait(awaitable):
    return await awaitable


def file_of(name: str) -> Path | None:
    """The file in a name such as my_rewards.py:brief; None if the name begins with a module."""
    where = name.rpartition(":")[0]
    return Path(where).expanduser() if where.endswith(".py") else None


def load_own(name: str) -> Reward:
    """Execute the file, or import the module, of a name; return its function as a Reward of that name.

    The function is a Reward, or any function that TRL takes. Raises UserError if it cannot be loaded.
    """
    where, _, function = name.rpartition(":")
    file = file_of(name)
    with _in_words(f"{where} cannot be loaded", ", but the recipe's rewards name it."):
        module = _execute(file) if file else importlib.import_module(where)
    found = getattr(module, function, None)
    if isinstance(found, Reward):
        return replace(found, name=name)
    if callable(found):
        return TrlReward(found, name=name)
    known = {key for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    raise UserError(f"{where} has no function {function!r}{did_you_mean(function, known)}")


def keep_copies(names, folder: Path) -> None:
    """Copy the files that reward names begin with into a run folder.

    A module beside the file, which the file imports, is not copied; its name is printed.
    """
    for file in {file_of(name) for name in names} - {None}:
        (folder / FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / FOLDER / file.name)
        beside = sorted(_imported_beside(file))
        if beside:
            print(f"{file.name} imports {', '.join(beside)}, which the run folder does not hold a copy of.")


def hashes(names) -> dict[str, str]:
    """{name: sha256, 16 digits} of the files that reward names begin with."""
    files = {name: file_of(name) for name in names}
    return {name: _digest(file) for name, file in files.items() if file and file.is_file()}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _execute(file: Path):
    """The module of a file; a file that has changed is executed again."""
    file = file.resolve()
    if not file.is_file():
        raise UserError(f"{file} does not exist, but the recipe's rewards name it.")
    name = f"_r1nb_own_{_digest(file)}_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(file.parent))  # it may import modules beside it, as a script may
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(file.parent))
        sys.modules[name] = module
    return sys.modules[name]


def _imported_beside(file: Path) -> set[str]:
    """The names of files in the same folder that have been imported."""
    files = {Path(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    return {path.name for path in files if path.parent == file.resolve().parent and path != file.resolve()}


@contextlib.contextmanager
def _in_words(what: str, end: str):
    """Turn an error of the user's code into a UserError: `what` happened, (the error), `end`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} ({type(error).__name__}: {error}){end}") from error
