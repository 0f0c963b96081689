"""DeepSeek-R1-Zero's two rewards (arXiv 2501.12948v1, section 2.2.2): format and accuracy.

Accuracy is judged for Countdown, the task on which the results were first reproduced on a small scale.
"""

from r1nb.rewards.five import why_not_blocks
from r1nb.rewards.registry import reward
from r1nb.text.arithmetic import evaluate_expression
from r1nb.text.prompts import REASONING


@reward(high=1.0, judges="format")
def r1_format_reward_func(text: str, answer: str, layout=REASONING):
    """1.0 if the text is only the two blocks, with any white space, and neither is blank; else 0.0."""
    reason = why_not_blocks(text, layout, alone=True)
    return (0.0, reason) if reason else (1.0, "the two blocks and nothing else")


@reward(high=1.0, judges="answer", block=True)
def countdown_reward_func(given: str, answer: str, nums, target):
    """1.0 if the answer block is an expression that uses each given number once and equals the target.

    It may have the four operators and parentheses, and end with `= target`. Fractions are computed exactly.
    """
    expression, equals, result = given.partition("=")
    value = evaluate_expression(expression)
    if value is None or (equals and result.strip() != str(target)):
        return 0.0, f"{given[:40] or 'nothing'} is not an expression that uses only + - * /"
    found, used = value
    if sorted(used) != sorted(nums):
        return 0.0, f"the numbers used are not {', '.join(map(str, nums))}, once each"
    shown = str(found)[:40]
    return (1.0, f"equals {target}") if found == target else (0.0, f"equals {shown}, not {target}")
