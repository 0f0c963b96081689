"""Decide with math-verify whether two answers mean the same: fractions, units, LaTeX, sets and intervals."""

from r1nb.rewards.registry import reward
from r1nb.rewards.sandbox import run_sandboxed
from r1nb.text.numbers import is_integer, same_answer, to_number

SECONDS = 5  # for one comparison
LONGEST = 1_000  # characters of an answer


def math_equal(given: str, gold: str, seconds: float = SECONDS) -> bool | None:
    """Whether two answers, as text or LaTeX, mean the same; None if the comparison took too long."""
    if len(given) > LONGEST or len(gold) > LONGEST:
        return False
    return run_sandboxed("r1nb.rewards.mathematics:compare", "math_verify", given, gold, seconds=seconds)


def readable(gold: str) -> bool:
    """Whether a gold is a number or math-verify can read it."""
    return to_number(gold) is not None or bool(math_equal(gold, gold))


def compare(given: str, gold: str) -> bool:
    """Whether math-verify finds two answers equal; runs in the sandbox, because it may never end."""
    from math_verify import parse, verify

    parsed = []
    for answer in (gold, given):
        bare = answer.strip().strip("$").strip()
        boxed = bare if bare.startswith("\\boxed{") else f"\\boxed{{{bare}}}"
        parsed.append(parse(boxed, parsing_timeout=None, fallback_mode="no_fallback"))
    return all(parsed) and bool(verify(*parsed, timeout_seconds=None))


@reward(high=1.0, judges="answer", block=True, library="math_verify")
def math_reward_func(given: str, answer: str):
    r"""1.0 if the answer block means the same as the gold: 1/2, 0.5 and \boxed{\frac{1}{2}} are the same.

    math-verify ignores units, degrees and the order of a set, and takes 50% as both 50 and 0.5. A comparison
    that takes over 5 seconds earns 0.0.
    """
    if same_answer(given, answer):
        return 1.0, f"{given[:40]} equals the gold {answer[:40]}"
    both_integers = is_integer(given) and is_integer(answer)
    equal = False if both_integers or not given else math_equal(given, answer)
    if equal is None:
        return 0.0, f"the comparison took over {SECONDS} seconds"
    if equal:
        return 1.0, f"{given[:40]} means the same as the gold {answer[:40]}"
    return 0.0, f"{given[:40] or 'nothing'} does not mean the same as the gold {answer[:40]}"
