"""reasoning-gym's tasks: problems made on demand, each scored by its task's own score_answer."""

from functools import cache, lru_cache

from r1nb.child import ask
from r1nb.errors import UserError
from r1nb.prompts import find_fault, parse_completion
from r1nb.rewards.registry import reward

SECONDS = 20  # for one answer; a few tasks take 5 seconds to prepare
# How many problems each split may have; splits follow each other in one sequence. With another
# seed a task would begin with other problems of the same sequence, and splits would overlap.
PROBLEMS = {"train": 16_000, "validation": 2_000, "test": 2_000}


def gym_problem(problem: str) -> tuple[str, str]:
    """(question, gold) of a problem "task:number", always the same; "" where many answers are right."""
    return tuple(ask("r1nb.rewards.gym:make", "reasoning_gym", problem, seconds=SECONDS) or ("", ""))


def gym_tasks() -> list[str]:
    """The names of the tasks that there are."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError("This dataset needs reasoning-gym: pip install 'r1nb[gym]'.") from None
    return sorted(set(DATASETS) - {"composite"})  # which mixes others, as "a+b" does here


@reward(high=1.0, judges="answer")
def gym_reward_func(text: str, answer: str, problem, layout="reasoning"):
    """What the task's own score_answer gives the answer block, 0.0 to 1.0 (some give partial credit)."""
    parsed = parse_completion(text, layout)
    if not parsed:
        return 0.0, f"no answer to read: {find_fault(text, layout)}"
    task, given = problem.partition(":")[0], parsed.answer.strip()
    score = ask("r1nb.rewards.gym:score_answer", "reasoning_gym", problem, given, seconds=SECONDS)
    if score is None:
        return 0.0, f"{task} could not score the answer within {SECONDS} seconds"
    return float(score), f"{task} gives {score:.2f}"


def make(problem: str) -> tuple[str, str]:
    """What gym_problem returns, made in the child, where the order of a set is always the same."""
    entry = _entry(problem)
    return entry["question"], "" if entry["answer"] is None else str(entry["answer"])


def score_answer(problem: str, answer: str) -> float:
    """What the task itself says; some tasks evaluate the answer as Python, so only the child does it."""
    task = _task(problem.partition(":")[0])
    return min(1.0, max(0.0, float(task.score_answer(answer, _entry(problem)))))


@lru_cache(maxsize=4096)
def _entry(problem: str) -> dict:
    name, _, number = problem.partition(":")
    return _task(name)[int(number)]


@cache
def _task(name: str):
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=0, size=sum(PROBLEMS.values()))
