"""The five rewards of the format; an ideal completion earns exactly 4.0.

They carry the names and weights of the public demo that the field copies (demo.py), and differ:
reasoning may have several lines; a completion may stop at </answer>; untagged, unclosed and
repeated answers earn nothing for being right; numbers are compared as numbers; the tag count takes
off at most 0.125, and only for text after the end.
"""

import re

from r1nb.rewards.registry import reward
from r1nb.text.numbers import is_integer, same_answer
from r1nb.text.prompts import REASONING, Layout


@reward(high=2.0, judges="answer")
def correctness_reward_func(text: str, answer: str, layout=REASONING):
    """2.0 if the answer block equals the gold.

    There must be one closed answer block after closed reasoning; `1080`, `1,080` and `$1,080.00`
    are the same. Blank reasoning costs the format rewards, not this one.
    """
    given, reason = layout.read_answer(text)
    if reason:
        return 0.0, reason
    if same_answer(given, answer):
        return 2.0, f"{given[:40]} equals the gold {answer[:40]}"
    return 0.0, f"{given[:40] or 'nothing'} is not the gold {answer[:40]}"


@reward(high=0.5)
def int_reward_func(text: str, answer: str, layout=REASONING):
    """0.5 if the answer block is an integer, right or wrong, without unit or other text."""
    given, reason = layout.read_answer(text)
    if reason:
        return 0.0, reason
    if is_integer(given):
        return 0.5, f"{given[:40]} is an integer"
    return 0.0, f"{given[:40] or 'nothing'} is not an integer and nothing else"


@reward(high=0.5, judges="format")
def strict_format_reward_func(text: str, answer: str, layout=REASONING):
    """0.5 if the whole text is the two blocks, each tag on a line of its own, neither blank."""
    if reason := _why_not_blocks(text, layout):
        return 0.0, reason
    opening, closing, answer_opening, answer_closing = layout.tags
    pattern = f"{opening}\n.*\n{closing}\n{answer_opening}\n.*\n{answer_closing}"
    if re.fullmatch(pattern, text.strip(), re.DOTALL):
        return 0.5, "exactly the layout asked for"
    parsed = layout.parse(text)
    if parsed.before.strip() or parsed.after.strip():
        return 0.0, f"text {'before' if parsed.before.strip() else 'after'} the two blocks"
    return 0.0, "a tag is not on a line of its own"


@reward(high=0.5)
def soft_format_reward_func(text: str, answer: str, layout=REASONING):
    """0.5 if the two blocks follow each other with any white space, neither blank.

    Text before or after them is allowed: a preface costs the strict reward, not this one.
    """
    reason = _why_not_blocks(text, layout)
    return (0.0, reason) if reason else (0.5, "the two blocks follow each other")


@reward(high=0.5)
def xmlcount_reward_func(text: str, answer: str, layout=REASONING):
    """0.125 for each tag that occurs exactly once and in its place, less 0.001 a trailing character.

    In its place: after every single tag that belongs before it, before every one that belongs
    after it. The penalty counts the text after the last tag, up to 0.125.
    """
    tags = layout.tags
    places = [text.find(tag) if text.count(tag) == 1 else None for tag in tags]
    good = 0
    for i, place in enumerate(places):
        others = [(j, other) for j, other in enumerate(places) if other is not None and j != i]
        good += place is not None and all((other < place) == (j < i) for j, other in others)
    trailing = len(text.rpartition(tags[-1])[2].strip()) if tags[-1] in text else 0
    reason = f"{good} of 4 tags once and in place"
    if trailing:
        reason += f", {trailing} characters after {tags[-1]}"
    return max(0.0, 0.125 * good - min(0.125, 0.001 * trailing)), reason


def _why_not_blocks(text: str, layout: Layout) -> str:
    """Why a text does not hold the two blocks, one after the other, neither blank; or ""."""
    parsed = layout.parse(text)
    if not parsed:
        return layout.why_unreadable(text)
    if parsed.between.strip():
        return "text between the two blocks"
    if not parsed.reasoning.strip():
        return "the reasoning is blank"
    return "" if parsed.answer.strip() else "the answer is blank"
