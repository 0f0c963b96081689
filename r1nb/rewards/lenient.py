"""A reward for a right answer in any format, for a model that does not write the format yet."""

from r1nb.rewards.registry import reward
from r1nb.text.numbers import last_number, same_answer


@reward(high=1.0)
def last_number_reward_func(text: str, answer: str):
    r"""1.0 if the last number of the completion equals the gold, with or without tags, as in \boxed{80}.

    Use it beside correctness_reward_func, which pays only for an answer block and so pays nothing for the
    first steps of a model that never writes one.
    """
    given = last_number(text) or ""
    if same_answer(given, answer):
        return 1.0, f"the last number, {given[:40]}, equals the gold"
    return 0.0, f"the last number, {given[:40] or 'none'}, is not the gold {answer[:40]}"
