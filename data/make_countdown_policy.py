"""Pretrain the tiny policy for Countdown, on a CPU, from its own corpus.

    python data/make_countdown_policy.py [folder]     # half an hour on a busy core

The policy is first trained mostly on searches: attempts in a fixed order, each failed one followed by a note
that its value is not the target. Then it is trained mostly on bare guesses, so that it can search but seldom
does. tiny-countdown.yaml states every share.
"""

import random
import sys
from pathlib import Path

import yaml
from make_countdown import Problem, draw
from make_policy import pretrain

from r1nb.text.prompts import LAYOUTS

HERE = Path(__file__).parent
PLAN = yaml.safe_load((HERE / "tiny-countdown.yaml").read_text())


def write_search(rng: random.Random, problem: Problem) -> tuple[str, str]:
    """A search as (thought, expression): attempts in a fixed order until one hits the target."""
    corpus, attempts = PLAN["corpus"], problem.attempts()
    count = next(i for i, attempt in enumerate(attempts) if attempt.value == problem.target)
    lines = [f"{attempt.steps}, not {problem.target}." for attempt in attempts[:count]]
    hit = attempts[count]
    if lines and rng.random() < corpus["correction"]:  # the last failed attempt is first taken for a hit
        steps = attempts[count - 1].steps
        _, last = steps.split(", ")
        slip = f"{last.partition('=')[0]}={problem.target}"
        lines[-1] = f"{steps.replace(last, slip)}. Wait, {last}, not {problem.target}."
    check = f" Check: {hit.expression}={problem.target}, right." if rng.random() < corpus["check"] else ""
    return "\n".join([*lines, f"{hit.steps}.{check}"]), hit.expression


def write_reply(rng: random.Random, problem: Problem, phase: dict) -> str:
    way = rng.choices(list(phase["ways"]), list(phase["ways"].values()))[0]
    if way == "search":
        return LAYOUTS[PLAN["layout"]].format_reply(*write_search(rng, problem))
    attempts = problem.attempts()
    hits = [attempt for attempt in attempts if attempt.value == problem.target]
    failing = [attempt for attempt in attempts if attempt.value != problem.target]
    right = rng.random() < phase["right"][way] or not failing
    attempt = rng.choice(hits if right else failing)
    if way == "bare":
        return attempt.expression
    return LAYOUTS[PLAN["layout"]].format_reply(f"{attempt.steps}.", attempt.expression)


def draw_corpus(seed: str, phase: dict, count: int):
    """Yield `count` pairs (problem, reply) with problems of the training split only."""
    rng = random.Random(seed)
    for _ in range(count):
        problem = draw(rng, "train")
        yield problem, write_reply(rng, problem, phase)


if __name__ == "__main__":
    pretrain(PLAN, draw_corpus, Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "tiny-countdown")
