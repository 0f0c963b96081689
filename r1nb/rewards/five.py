"""Five rewards for a right answer in the right format; an ideal completion earns exactly 4.0.

They have the names and weights of a widely copied public demo (demo.py), but differ: reasoning may have
several lines; a completion may stop at </answer>; an answer without tags, not closed or given twice does not
count as right; numbers are compared as numbers; the tag count subtracts at most 0.125, and only for text
after the last tag.
"""

import re

from r1nb.rewards.registry import reward
from r1nb.text.numbers import is_integer, same_answer
from r1nb.text.prompts import REASONING, Layout


@reward(high=2.0, judges="answer", block=True)
def correctness_reward_func(given: str, answer: str):
    """2.0 if the answer block equals the gold.

    There must be one closed answer block after a closed reasoning block. `1080`, `1,080` and `$1,080.00` are
    equal. Blank reasoning loses the format rewards, but not this one.
    """
    if same_answer(given, answer):
        return 2.0, f"{given[:40]} equals the gold {answer[:40]}"
    return 0.0, f"{given[:40] or 'nothing'} is not the gold {answer[:40]}"


@reward(high=0.5, block=True)
def int_reward_func(given: str, answer: str):
    """0.5 if the answer block is an integer, right or wrong, without unit or other text."""
    if is_integer(given):
        return 0.5, f"{given[:40]} is an integer"
    return 0.0, f"{given[:40] or 'nothing'} is not a bare integer"


@reward(high=0.5, judges="format")
def strict_format_reward_func(text: str, answer: str, layout=REASONING):
    """0.5 if the text is only the two blocks, neither is blank, and each tag is on a line of its own."""
    if reason := why_not_blocks(text, layout, alone=True):
        return 0.0, reason
    if re.fullmatch(layout.format_reply(".*", ".*"), text.strip(), re.DOTALL):
        return 0.5, "exactly the layout asked for"
    return 0.0, "a tag is not on a line of its own"


@reward(high=0.5)
def soft_format_reward_func(text: str, answer: str, layout=REASONING):
    """0.5 if the two blocks follow each other with only white space between, and neither is blank.

    Text before or after the blocks is allowed: it loses the strict reward, but not this one.
    """
    reason = why_not_blocks(text, layout)
    return (0.0, reason) if reason else (0.5, "the two blocks follow each other")


@reward(high=0.5)
def xmlcount_reward_func(text: str, answer: str, layout=REASONING):
    """0.125 for each tag that occurs exactly once and in its place, minus 0.001 per trailing character.

    Only tags that occur exactly once are compared: a tag is in its place if all of them that belong before it
    are before it, and all others after it. The penalty is for text after the last tag, at most 0.125.
    """
    single = {i: text.index(tag) for i, tag in enumerate(layout.tags) if text.count(tag) == 1}
    good = 0
    for i, place in single.items():
        good += all((other < place) == (j < i) for j, other in single.items())
    _, last, after = text.rpartition(layout.tags[-1])
    trailing = len(after.strip()) if last else 0
    reason = f"{good} of 4 tags once and in place"
    if trailing:
        reason += f", {trailing} characters after {last}"
    return max(0.0, 0.125 * good - min(0.125, 0.001 * trailing)), reason


def why_not_blocks(text: str, layout: Layout, alone: bool = False) -> str:
    """Why a text does not contain the two blocks in a row, neither of them blank; "" if it does.

    With `alone`, the text may contain nothing else.
    """
    parsed = layout.parse(text)
    if not parsed:
        return layout.why_unreadable(text)
    for part in ("between", "before", "after") if alone else ("between",):
        if getattr(parsed, part).strip():
            return f"text {part} the two blocks"
    if not parsed.reasoning.strip():
        return "the reasoning is blank"
    return "" if parsed.answer.strip() else "the answer is blank"
