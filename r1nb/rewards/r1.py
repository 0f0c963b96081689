"""DeepSeek-R1-Zero's two rewards (arXiv 2501.12948v1, section 2.2.2): format and accuracy.

The accuracy is that of Countdown, on which its results were first repeated on a small scale.
"""

from r1nb.rewards.five import soft_format_reward_func
from r1nb.rewards.registry import reward
from r1nb.text.arithmetic import evaluate_expression
from r1nb.text.prompts import REASONING


@reward(high=1.0, judges="format")
def r1_format_reward_func(text: str, answer: str, layout=REASONING):
    """1.0 if the whole text is the two blocks, with any white space, neither blank; else 0.0."""
    score, reason = soft_format_reward_func.function(text, answer, layout)
    if not score:
        return 0.0, reason
    parsed = layout.parse(text)
    if parsed.before.strip() or parsed.after.strip():
        return 0.0, "text before or after the two blocks"
    return 1.0, "the two blocks and nothing else"


@reward(high=1.0, judges="answer")
def countdown_reward_func(text: str, answer: str, nums, target, layout=REASONING):
    """1.0 if the answer block is an expression of every given number, once each, equal to the target.

    Four operators and parentheses, exact fractions; a final `= target` may stand after it.
    """
    given, reason = layout.read_answer(text)
    if reason:
        return 0.0, reason
    expression, equals, result = given.partition("=")
    value = evaluate_expression(expression)
    if value is None or (equals and result.strip() != str(target)):
        return 0.0, f"{given[:40] or 'nothing'} is not an expression in + - * / alone"
    found, used = value
    if sorted(used) != sorted(nums):
        return 0.0, f"the numbers are not {', '.join(map(str, nums))}, once each"
    shown = str(found)[:40]
    return (1.0, f"equals {target}") if found == target else (0.0, f"equals {shown}, not {target}")
