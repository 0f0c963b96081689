"""Reward functions, by name and in TRL's signature; each module is imported when it is first used."""

import lazy_loader

from r1nb.rewards.registry import SHIPPED

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs=SHIPPED
    | {
        "registry": ["Reward", "find_reward", "reward", "reward_names"],
        "grading": ["Graded", "Judge", "grade", "make_judge", "summarize", "summarize_samples"],
    },
)
