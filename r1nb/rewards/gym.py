"""reasoning-gym's tasks: problems made on demand, each scored by its task's own score_answer."""

import re
import unicodedata
from functools import cache, lru_cache

from r1nb.errors import UserError
from r1nb.rewards.registry import reward
from r1nb.rewards.sandbox import ask
from r1nb.text.prompts import REASONING

SECONDS, PREPARING = 5, 30  # for one answer, and for the first of a task
LONGEST = 10_000  # characters of an answer
SIZE = 20_000  # problems of a task; with another seed it would begin in the middle of the same sequence
PROBLEMS = {"train": range(1_000), "validation": range(16_000, 16_200), "test": range(18_000, 18_200)}
DUNDER = re.compile(r"__\w*[a-z]")  # a way out of Python, and no answer to any task
_prepared: set[str] = set()


def gym_problem(problem: str) -> tuple[str, str]:
    """(question, gold) of a problem "task:number", always the same.

    The gold is "" where many answers are right, both where the task failed to make it.
    """
    return tuple(_ask(problem, None) or ("", ""))


def _ask(problem: str, answer: str | None):
    task = problem.partition(":")[0]
    seconds = SECONDS if task in _prepared else PREPARING
    _prepared.add(task)
    return ask("r1nb.rewards.gym:serve", "reasoning_gym", problem, answer, seconds=seconds)


def gym_tasks() -> list[str]:
    """The names of the tasks that there are."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError("This dataset needs reasoning-gym: pip install 'r1nb[gym]'.") from None
    return sorted(set(DATASETS) - {"composite"})  # which mixes others, as "a+b" does here


@reward(high=1.0, judges="answer", library="reasoning_gym")
def gym_reward_func(text: str, answer: str, problem, layout=REASONING):
    """What the task's own score_answer gives the answer block, 0.0 to 1.0 (some give partial credit)."""
    given, reason = layout.read_answer(text)
    if reason:
        return 0.0, reason
    task = problem.partition(":")[0]
    if len(given) > LONGEST or DUNDER.search(unicodedata.normalize("NFKC", given)):
        return 0.0, "too long, or a program instead of an answer"
    score = _ask(problem, given)
    if score is None:
        return 0.0, f"{task} could not score the answer within {SECONDS} seconds"
    return float(score), f"{task} gives {score:.2f}"


def serve(problem: str, answer: str | None):
    """Only the child calls this: some tasks evaluate the answer, or depend on the order of a set.

    The task's score of an answer, 0 to 1; without an answer, what gym_problem returns.
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
