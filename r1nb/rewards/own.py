"""Reward functions of your own, which a recipe names by file or module: my_rewards.py:brief."""

import ast
import asyncio
import contextlib
import hashlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Mapping, Set
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path

from r1nb.errors import UserError, did_you_mean, say_once
from r1nb.rewards.registry import OWN_FILE, RESERVED, Reward, in_words, is_own
from r1nb.text.prompts import completion_text

FOLDER = "rewards"  # in a run folder: copies of the files that its recipe names
# Columns of the completion log, and the one that Run.completions adds.
LOGGED = ("step", "prompt", "completion", "advantage", "answer", "tokens", "cut", "total")
_HELPERS: dict[str, tuple[Path, bytes]] = {}  # {name: (path, content)} of the modules beside reward files
_MODULES: dict[str, bytes] = {}  # {name: content} of the modules that reward names begin with, as imported
_INSTEAD: dict[Path, Path] = {}  # {file: the copy that as_trained puts in its place}


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
    def _named(self) -> set[str] | None:
        """The arguments that the function names; None if it takes any."""
        parameters = inspect.signature(self.function, follow_wrapped=False).parameters.values()
        return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else {p.name for p in parameters}

    @property
    def reads(self) -> set[str] | None:
        return None if self._named is None else self._named | {"answer"}  # the log needs the gold

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
        ids = [each or [0] for each in columns.pop("completion_ids", None) or [[]] * len(texts)]
        given = columns | {"prompts": prompts, "completions": messages, "completion_ids": ids}
        given |= {"answer": answer, "log_extra": self._checked(log_extra)}
        given = {"log_metric": _ignore, "trainer_state": _untrained()} | given
        known = ", ".join(sorted({*columns, "answer"}.difference(RESERVED)))
        end = f": correct the function; it can read the columns {known}."
        with in_words(f"{self.__name__} failed on {texts[:1]!r:.80}", end):
            taken = {name: value for name, value in given.items() if name in (self._named or given)}
            lists = {name: deepcopy(v) for name, v in taken.items() if isinstance(v, list)}
            scores = self.function(**taken | lists)  # it may change its lists
            if inspect.isawaitable(scores):
                scores = asyncio.run_coroutine_threadsafe(asyncio.wait_for(scores, None), _loop()).result()
            count = f"a {type(scores).__name__}" if isinstance(scores, Mapping | Set) else ""
            scores = list(scores)
        if count or len(scores) != len(texts):
            count = f"{count or f'{len(scores)} scores'} for {len(texts)} completions"
            raise UserError(f"{self.__name__} returned {count}: return a list with one number for each.")
        return [self._number(score, text) for score, text in zip(scores, texts, strict=True)]

    def _checked(self, log_extra):
        """TRL's log_extra, which refuses the columns that the completion log has already."""

        def log(column, values):
            if column in LOGGED:
                why = f"log_extra({column!r}, ...), but the log has this column already: choose another name"
                raise UserError(f"{self.__name__} calls {why}.")
            (log_extra or _ignore)(column, values)

        return log


def _ignore(*_, **__) -> None:
    pass


def _untrained():
    """TRL's trainer_state before the first step."""
    from transformers import TrainerState

    return TrainerState(max_steps=1)  # functions divide by it


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for all async functions, as in TRL; in a thread, since a notebook has a loop of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def file_of(name: str) -> Path | None:
    """The file in a name such as my_rewards.py:brief; None if the name begins with a module."""
    where = name.rpartition(":")[0]
    return Path(where).expanduser() if where.endswith(".py") else None


def beside(recipe: Path, name):
    """A reward's name with the path of its file if that lies beside the recipe; else the name as it is."""
    file = file_of(str(name))
    found = file and (recipe.parent / file).is_file()
    return f"{recipe.parent / file}:{name.rpartition(':')[2]}" if found else name


def load_own(name: str) -> Reward:
    """Execute the file, or import the module, of a name; return its function as a Reward of that name.

    The function is a Reward, or any function that TRL takes. Raises UserError if it cannot be loaded.
    """
    where, _, function = name.rpartition(":")
    module = _load(name)
    found = getattr(module, function, None)
    if isinstance(found, Reward):
        return replace(found, name=name)
    if inspect.isclass(found):
        raise UserError(f"{name} is a class: name a function, or an instance of the class.")
    if callable(found):
        return TrlReward(found, name=name)
    known = {key for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    raise UserError(f"{where} has no function {function!r}{did_you_mean(function, known)}")


def _load(name: str):
    """The module that a reward's name begins with."""
    where = name.rpartition(":")[0]
    with in_words(f"{where} cannot be loaded", ", but the recipe's rewards name it."):
        return _execute(file) if (file := file_of(name)) else _import(where)


def hashes(names) -> dict[str, str]:
    """{name: sha256, 16 digits} of what reward names begin with: a file and what it imports, or a module."""
    return {name: _digest(sources) for name in names if (sources := _named_sources(name))}


def keep_copies(names, folder: Path) -> None:
    """Copy what reward names begin with into a run folder: files and what they import, and modules.

    What a module imports is neither copied nor checked for changes; a printed sentence says so.
    """
    for name, copy in _copies(names, folder).items():
        for path, content in _named_sources(name).items():
            (copy.parent / path).parent.mkdir(parents=True, exist_ok=True)
            (copy.parent / path).write_bytes(content)
        if not file_of(name):
            say_once(f"r1nb does not notice changes in the modules that {copy.stem} imports.")


@contextlib.contextmanager
def as_trained(run):
    """Inside the block, load a run's copies of files that were deleted or changed after the run began.

    A printed sentence names each copy that is used.
    """
    now, before = hashes(run.reward_weights), run.environment.get("reward_files", {})
    for name, copy in _copies(run.reward_weights, run.folder).items():
        if (file := file_of(name)) and now.get(name) != before.get(name) and copy.is_file():
            say_once(f"{file} was deleted or changed after {run.label} began: its copy {copy} is used.")
            _INSTEAD[file.resolve()] = copy
    try:
        yield
    finally:
        _INSTEAD.clear()


def _copies(names, folder: Path) -> dict[str, Path]:
    """{name: its copy in a run folder}; files of a second folder are copied to rewards/2, and so on."""
    places, copies = {}, {}
    for name in filter(is_own, names):
        place, file = "", file_of(name) or Path(f"{name.rpartition(':')[0]}.py")
        if file_of(name):
            place = places.setdefault(file.resolve().parent, str(len(places) + 1) if places else "")
        copies[name] = folder / FOLDER / place / file.name
    return copies


def _named_sources(name: str) -> dict[Path, bytes]:
    """{path: content} of what a reward's name begins with; {} if there is none, or no file of it."""
    if file := file_of(name):
        return _sources(file.resolve())
    if is_own(name):
        _load(name)
    where = name.rpartition(":")[0]
    return {Path(f"{where}.py"): _MODULES[where]} if where in _MODULES else {}


def _sources(file: Path) -> dict[Path, bytes]:
    """{path in its folder: content} of a file and the modules beside it that it imports, in functions too.

    Of a package beside it these are all files. {} if the file does not exist.
    """
    found, todo = {}, [file]
    while todo:
        path = todo.pop()
        if path.relative_to(file.parent) in found or not path.is_file():
            continue
        content = found[path.relative_to(file.parent)] = path.read_bytes()
        nodes = []
        with contextlib.suppress(SyntaxError, ValueError):  # its import raises them
            nodes = list(ast.walk(ast.parse(content)))
        names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
        for top in {name.partition(".")[0] for name in names} - {"r1nb"}:
            todo += [file.parent / f"{top}.py", *sorted((file.parent / top).rglob("*.py"))]
    return found


def _digest(sources: dict[Path, bytes]) -> str:
    return hashlib.sha256(b"".join(content for _, content in sorted(sources.items()))).hexdigest()[:16]


def _import(where: str):
    """The module of a dotted name; prints a sentence if its file has changed since the import."""
    module = importlib.import_module(where)
    if file := getattr(module, "__file__", None):
        content = Path(file).read_bytes()
        if _MODULES.setdefault(where, content) != content:
            say_once(f"{where} has changed since it was imported: restart Python to use the new version.")
    return module


def _execute(file: Path):
    """The module of a file; it is executed again if the file, or a module beside it, has changed."""
    original = file.resolve()
    file = _INSTEAD.get(original, original)
    if not (sources := _sources(file)):
        raise UserError(f"{file} does not exist, but the recipe's rewards name it.")
    name = f"{OWN_FILE}{_digest(sources)}_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        sources.pop(Path(file.name))
        _forget_changed(original, sources)
        spec, folder = importlib.util.spec_from_file_location(name, file), str(file.parent)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        # It may import modules beside it, as a script may, also when its functions are called.
        sys.path[:] = [folder, *(path for path in sys.path if path != folder)]
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _forget_changed(file: Path, beside: dict[Path, bytes]) -> None:
    """Make Python import the modules beside a file again if one has changed.

    Raises UserError if this process has imported another module of the same name.
    """
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in beside}
    changed = {}
    for name, path in modules.items():
        now, other = (file.parent / path, beside[path]), getattr(sys.modules.get(name), "__file__", None)
        known, content = _HELPERS.get(name, (Path(other).resolve() if other else now[0], None))
        if content != now[1]:
            changed[name] = now
            if known != now[0]:
                raise UserError(
                    f"{file} imports {path}, but {known} is already imported as {name}: rename one of them."
                )
    for path, _ in changed.values():  # Python tells versions of one size only by the second of their writing
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
    for name in modules if changed else ():
        sys.modules.pop(name, None)
    _HELPERS.update(changed)
