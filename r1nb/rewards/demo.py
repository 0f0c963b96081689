"""The public demo's five rewards as the field copies them (willccb, "GRPO demo", 2025), mistakes included.

They are here for comparison with r1nb's own, not for training. five.py says what differs.
"""

import math
import re

from r1nb.rewards.registry import reward


@reward(high=2.0)
def demo_correctness_reward_func(text: str, answer: str) -> float:
    """2.0 if the text after the last <answer>, tagged or not, is the gold, character by character."""
    return 2.0 if _extracted(text) == answer else 0.0


@reward(high=0.5)
def demo_int_reward_func(text: str, answer: str) -> float:
    """0.5 if that text passes str.isdigit, as ² does and -5 does not."""
    return 0.5 if _extracted(text).isdigit() else 0.0


@reward(high=0.5)
def demo_strict_format_reward_func(text: str, answer: str) -> float:
    """0.5 for one line of reasoning and a final newline: `.` matches no line break."""
    pattern = r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$"
    return 0.5 if re.match(pattern, text) else 0.0


@reward(high=0.5)
def demo_soft_format_reward_func(text: str, answer: str) -> float:
    """0.5 for blocks of one line each, without the newlines that strict asks for."""
    for reasoning in (".*?", ".*"):  # trying each </reasoning> would take the square of the length
        start = re.match(rf"<reasoning>{reasoning}</reasoning>\s*<answer>", text)
        if start and re.compile(".*?</answer>").match(text, start.end()):
            return 0.5
    return 0.0


@reward(high=0.5, low=-math.inf)
def demo_xmlcount_reward_func(text: str, answer: str) -> float:
    """0.125 a tag, less 0.001 a character of all that follows an </answer>, the text itself included."""
    score = 0.125 * (text.count("<reasoning>\n") == 1) + 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        score += 0.125 - 0.001 * len(text.split("\n</answer>\n")[-1])
    if text.count("\n</answer>") == 1:
        score += 0.125 - 0.001 * (len(text.split("\n</answer>")[-1]) - 1)
    return score


def _extracted(text: str) -> str:
    return text.split("<answer>")[-1].split("</answer>")[0].strip()
