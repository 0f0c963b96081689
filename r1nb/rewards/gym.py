"""Problems of reasoning-gym, generated on demand, and a reward that uses each task's own scoring."""

import re
import unicodedata
from functools import cache, lru_cache

from r1nb.errors import UserError
from r1nb.rewards.registry import reward
from r1nb.rewards.sandbox import run_sandboxed

SECONDS, PREPARING = 5, 30  # time limits: for one answer, and for a task's first call
LONGEST = 10_000  # characters of an answer
SIZE = 20_000  # problems of a task. Splits are ranges of them: another seed would only shift the sequence
PROBLEMS = {"train": range(1_000), "validation": range(16_000, 16_200), "test": range(18_000, 18_200)}
DUNDER = re.compile(r"__\w*[a-z]")  # as in __import__; the answer to a task never has it
_prepared: set[str] = set()


def gym_problem(problem: str) -> tuple[str, str]:
    """(question, gold) of the problem "task:number", the same in every call.

    The gold is "" if many answers are right. Both are "" if the task could not generate the problem.
    """
    return tuple(_ask(problem, None) or ("", ""))


def _ask(problem: str, answer: str | None):
    """Run make_or_score in the sandbox; None if it takes too long. A task's first call may take longer."""
    task = problem.partition(":")[0]
    seconds = SECONDS if task in _prepared else PREPARING
    _prepared.add(task)
    return run_sandboxed("r1nb.rewards.gym:make_or_score", "reasoning_gym", problem, answer, seconds=seconds)


def gym_tasks() -> list[str]:
    """The names of reasoning-gym's tasks."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError("This dataset needs reasoning-gym: pip install 'r1nb[gym]'.") from None
    return sorted(set(DATASETS) - {"composite"})  # it mixes tasks, as "task+task" does here


@reward(high=1.0, judges="answer", block=True, library="reasoning_gym")
def gym_reward_func(given: str, answer: str, problem):
    """The answer block's score by the task's own score_answer, 0.0 to 1.0; some tasks give partial credit."""
    task = problem.partition(":")[0]
    if len(given) > LONGEST or DUNDER.search(unicodedata.normalize("NFKC", given)):
        return 0.0, "too long, or a program instead of an answer"
    score = _ask(problem, given)
    if score is None:
        return 0.0, f"{task} could not score the answer within {SECONDS} seconds"
    return float(score), f"{task} gives {score:.2f}"


def make_or_score(problem: str, answer: str | None):
    """The task's score of an answer, 0 to 1; if the answer is None, the problem's (question, gold).

    This runs in the sandbox, because some tasks evaluate the answer as code or depend on the order of a set.
    """
    name, _, number = problem.partition(":")
    task, entry = _task(name), _entry(name, int(number))
    if answer is None:
        return entry["question"], "" if entry["answer"] is None else str(entry["answer"])
    return min(1.0, max(0.0, float(task.score_answer(answer, entry))))


@lru_cache(maxsize=4096)
def _entry(name: str, number: int) -> dict:
    return _task(name)[number]


@cache
def _task(name: str):
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=0, size=SIZE)
