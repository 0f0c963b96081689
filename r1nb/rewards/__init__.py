"""Every reward that a recipe can name: REWARDS, by the name of its function."""

# ruff: noqa: I001  (REWARDS lists them in this order)
from r1nb.rewards.registry import REWARDS, Reward, best_total, columns_of, reward, short_name
from r1nb.rewards import five, r1, mathematics, reasoning, judge, gym, demo

__all__ = ["REWARDS", "Reward", "best_total", "columns_of", "reward", "short_name"]
__all__ += ["demo", "five", "gym", "judge", "mathematics", "r1", "reasoning"]
