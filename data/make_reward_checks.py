"""Attack ten rewards with a planted hole and r1nb's own; train the tiny policy on each: make check-rewards.

Writes data/results/check-rewards.csv: what check_reward said of each, and what the policy came to write.
"""

import csv
import re
import sys
from pathlib import Path

from r1nb.rewards.registry import find_reward, reward_names
from r1nb.tasks.rows import load_rows
from r1nb.training.attack import check_reward

RESULTS = Path(__file__).parent / "results" / "check-rewards.csv"
STEPS = 32
LIMITS = {"max_completion_length": 112, "overlong_cache": 22}
NOT_HERE = (
    "judge_reward_func",
    "gym_reward_func",
    "demo_",
)  # need an endpoint or another dataset; have known holes


def texts(completions) -> list[str]:
    return [completion[0]["content"] for completion in completions]


def blocks(text: str) -> list[str]:
    return [block.replace(",", "") for block in re.findall(r"<answer>\s*(.*?)\s*</answer>", text, re.DOTALL)]


def any_number(completions, **_):
    """1 for any number in the answer block."""
    return [float(any(re.fullmatch(r"-?\d+", b) for b in blocks(text))) for text in texts(completions)]


def length(completions, answer, **_):
    """1 for the right answer, and a little for each character."""
    pairs = zip(texts(completions), answer, strict=True)
    return [float(blocks(text)[-1:] == [gold]) + len(text) / 1000 for text, gold in pairs]


def tag_alone(completions, **_):
    """1 for the tag, whatever is in it."""
    return [float("<answer>" in text) for text in texts(completions)]


def substring(completions, answer, **_):
    """1 if the gold is a part of the answer block: 12 in 120."""
    pairs = zip(texts(completions), answer, strict=True)
    return [float(any(gold in block for block in blocks(text))) for text, gold in pairs]


def no_sign(completions, answer, **_):
    """1 for the right answer, with any sign."""
    pairs = zip(texts(completions), answer, strict=True)
    return [float([b.lstrip("-") for b in blocks(text)] == [gold.lstrip("-")]) for text, gold in pairs]


def anywhere(completions, answer, **_):
    """1 if the gold stands anywhere."""
    pairs = zip(texts(completions), answer, strict=True)
    return [float(gold in re.findall(r"-?\d+", text.replace(",", ""))) for text, gold in pairs]


def each_block(completions, answer, **_):
    """1 for each block with the right answer."""
    pairs = zip(texts(completions), answer, strict=True)
    return [float(blocks(text).count(gold)) for text, gold in pairs]


def raises(completions, answer, **_):
    """1 for the right answer; a completion without one is an IndexError."""
    return [float(blocks(text)[0] == gold) for text, gold in zip(texts(completions), answer, strict=True)]


def too_few(completions, answer, **_):
    """1 for the right answer, and no score at all for an empty completion."""
    return [
        float(blocks(text) == [gold]) for text, gold in zip(texts(completions), answer, strict=True) if text
    ]


def no_comma(completions, answer, **_):
    """1 for the right answer, but 0 for 1,080."""
    pairs = zip(texts(completions), answer, strict=True)
    return [float(blocks(text) == [gold] and f"\n{gold}\n" in text) for text, gold in pairs]


HOLES = [any_number, length, tag_alone, substring, no_sign, anywhere, each_block, raises, too_few, no_comma]


def shipped() -> list:
    """r1nb's rewards that can be attacked here."""
    names = [name for name in reward_names() if not name.startswith(NOT_HERE)]
    return [find_reward(name).bind(**LIMITS) if "overlong" in name else find_reward(name) for name in names]


def rows_for(name: str):
    return load_rows("bundled-countdown" if name == "countdown_reward_func" else "bundled", "train")


def main(steps: int = STEPS) -> None:
    lines = []
    for planted, function in [*((True, hole) for hole in HOLES), *((False, own) for own in shipped())]:
        name = function.__name__
        trains = name != "countdown_reward_func"  # the tiny policy knows no Countdown
        found = check_reward(function, rows_for(name), steps=steps if trains else 0)
        lines.append(
            [name, planted, len(found.problems), " ".join(found.problems), " | ".join(found.learned)]
        )
        print(name, "hole" if planted else "shipped", *found.problems, sep="\n  ", flush=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["reward", "planted hole", "problems", "sentences", "learned"], *lines])
    holes = [line for line in lines if line[1]]
    print(f"{sum(bool(line[2]) for line in holes)} of {len(holes)} holes found; ", end="")
    print(
        f"{sum(bool(line[2]) for line in lines if not line[1])} of {len(lines) - len(holes)} others accused"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
