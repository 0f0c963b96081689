"""The five rewards of the format, in TRL's signature; an ideal completion earns exactly 4.0.

They carry the names and weights of the public demo (willccb, "GRPO demo", 2025) that the field
copies, and differ from it where it does not do what it says: its format patterns lack DOTALL and
so never match reasoning of several lines, its strict pattern wants a final newline that a model
which stops at </answer> never writes, untagged text earns correctness, and its tag count
subtracts a penalty for the length of the whole completion.
"""

import re
from collections.abc import Callable
from functools import wraps

from r1nb.answers import is_integer, same_answer
from r1nb.prompts import TAGS, completion_text, parse_completion

STRICT = re.compile(r"<reasoning>\n(.*)\n</reasoning>\n<answer>\n(.*)\n</answer>", re.DOTALL)
REWARDS: dict[str, Callable] = {}


def short_name(name: str) -> str:
    """A reward function's name without its ending, for tables and legends."""
    return name.removesuffix("_func").removesuffix("_reward")


def best_total(weights: dict[str, float]) -> float:
    """What an ideal completion earns in all, under a recipe's weights."""
    return sum(REWARDS[name].high * weight for name, weight in weights.items())


def reward(high: float, low: float = 0.0):
    """Turn `score(text, answer) -> float` into a TRL reward function and list it in REWARDS.

    The result takes TRL's keywords (completions as strings or chat messages, one gold `answer`
    each) and returns one float a completion, between its `.low` and `.high`.
    """

    def register(score):
        @wraps(score)
        def reward_func(completions, answer=None, **_columns) -> list[float]:
            golds = answer if answer is not None else [""] * len(completions)
            texts = map(completion_text, completions)
            return [float(score(text, str(gold))) for text, gold in zip(texts, golds, strict=True)]

        reward_func.low, reward_func.high, reward_func.score = low, high, score
        REWARDS[score.__name__] = reward_func
        return reward_func

    return register


@reward(high=2.0)
def correctness_reward_func(text: str, answer: str) -> float:
    """2.0 if the answer block equals the gold.

    There must be one closed answer block after closed reasoning; `1080`, `1,080` and `$1,080.00`
    are the same. Blank reasoning costs the format rewards, not this one.
    """
    parsed = parse_completion(text)
    return 2.0 if parsed and same_answer(parsed.answer, answer) else 0.0


@reward(high=0.5)
def int_reward_func(text: str, answer: str) -> float:
    """0.5 if the answer block is an integer, right or wrong, without unit or other text."""
    parsed = parse_completion(text)
    return 0.5 if parsed and is_integer(parsed.answer) else 0.0


@reward(high=0.5)
def strict_format_reward_func(text: str, answer: str) -> float:
    """0.5 if the whole text is the two blocks, each tag on a line of its own, neither blank."""
    match = STRICT.fullmatch(text.strip()) if parse_completion(text) else None
    return 0.5 if match and all(block.strip() for block in match.groups()) else 0.0


@reward(high=0.5)
def soft_format_reward_func(text: str, answer: str) -> float:
    """0.5 if the two blocks follow each other with any white space, neither blank.

    Text before or after them is allowed: a preface costs the strict reward, not this one.
    """
    parsed = parse_completion(text)
    if not parsed or parsed.between.strip():
        return 0.0
    return 0.5 if parsed.reasoning.strip() and parsed.answer.strip() else 0.0


@reward(high=0.5)
def xmlcount_reward_func(text: str, answer: str) -> float:
    """0.125 for each tag that stands exactly once and in its place, less 0.001 a trailing character.

    In its place: after every single tag that belongs before it, before every one that belongs
    after it. The penalty counts the text after </answer>, up to 0.125.
    """
    places = [text.find(tag) if text.count(tag) == 1 else None for tag in TAGS]
    score = 0.0
    for i, place in enumerate(places):
        if place is not None and all(
            (other < place) == (j < i) for j, other in enumerate(places) if other is not None and j != i
        ):
            score += 0.125
    trailing = text.rpartition("</answer>")[2].strip() if "</answer>" in text else ""
    return max(0.0, score - min(0.125, 0.001 * len(trailing)))


def log_facts(reward_func: Callable) -> Callable:
    """The same reward, which also writes each gold and token count into TRL's completion log."""

    @wraps(reward_func)
    def logging_reward(completions, completion_ids, answer, log_extra=None, **columns):
        if log_extra:
            log_extra("answer", list(answer))
            log_extra("tokens", [len(ids) for ids in completion_ids])
        return reward_func(completions=completions, answer=answer, **columns)

    return logging_reward
