"""The five rewards of a widely copied public demo (willccb, "GRPO demo", 2025), with their mistakes.

They are here to be compared with r1nb's own rewards, not for training. five.py lists the differences.
"""

import math
import re

from r1nb.rewards.registry import reward


@reward(high=2.0)
def demo_correctness_reward_func(text: str, answer: str) -> float:
    """2.0 if the text after the last <answer>, or the whole text without one, is exactly the gold."""
    return 2.0 if _extracted(text) == answer else 0.0


@reward(high=0.5)
def demo_int_reward_func(text: str, answer: str) -> float:
    """0.5 if the text after the last <answer> passes str.isdigit: ² passes, -5 does not."""
    return 0.5 if _extracted(text).isdigit() else 0.0


@reward(high=0.5)
def demo_strict_format_reward_func(text: str, answer: str) -> float:
    """0.5 if reasoning and answer have one line each and the text ends with a newline.

    The reason is that `.` in the pattern does not match a line break.
    """
    pattern = r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$"
    return 0.5 if re.match(pattern, text) else 0.0


@reward(high=0.5)
def demo_soft_format_reward_func(text: str, answer: str) -> float:
    """0.5 if each of the two blocks, including its tags, is on one line."""
    for reasoning in (".*?", ".*"):  # trying every </reasoning> would take quadratic time
        start = re.match(rf"<reasoning>{reasoning}</reasoning>\s*<answer>", text)
        if start and re.compile(".*?</answer>").match(text, start.end()):
            return 0.5
    return 0.0


@reward(high=0.5, low=-math.inf)
def demo_xmlcount_reward_func(text: str, answer: str) -> float:
    """0.125 per tag, minus 0.001 per trailing character; all text trails if no newline follows </answer>."""
    score = 0.125 * (text.count("<reasoning>\n") == 1) + 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        score += 0.125 - 0.001 * len(text.split("\n</answer>\n")[-1])
    if text.count("\n</answer>") == 1:
        score += 0.125 - 0.001 * (len(text.split("\n</answer>")[-1]) - 1)
    return score


def _extracted(text: str) -> str:
    return text.split("<answer>")[-1].split("</answer>")[0].strip()
