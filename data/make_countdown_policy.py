"""Pretrain the tiny policy for Countdown, on a CPU, from its own corpus.

    python data/make_countdown_policy.py [folder]     # half an hour on a busy core

It mostly answers with a bare guess; sometimes it thinks and tries once; seldom it searches: it tries,
sees that the value is not the target, goes back and tries again. tiny-countdown.yaml states every share.
"""

import random
import sys
from pathlib import Path

import yaml
from make_countdown import Problem, draw
from make_policy import pretrain

from r1nb.prompts import format_answer

HERE = Path(__file__).parent
PLAN = yaml.safe_load((HERE / "tiny-countdown.yaml").read_text())


def write_search(rng: random.Random, problem: Problem, failing: list, hits: list) -> tuple[str, str]:
    """(thought, expression): failed attempts, each followed by another, and at last one that hits."""
    corpus = PLAN["corpus"]
    count = rng.choices(list(corpus["failures"]), list(corpus["failures"].values()))[0]
    tried = rng.sample(failing, min(count, len(failing)))
    lines = [f"{attempt.steps}, not {problem.target}." for attempt in tried]
    if lines and rng.random() < corpus["correction"]:  # the last failure is first taken for a hit
        _, last = tried[-1].steps.split(", ")
        slip = f"{last.partition('=')[0]}={problem.target}"
        lines[-1] = f"{tried[-1].steps.replace(last, slip)}. Wait, {last}, not {problem.target}."
    if lines and rng.random() < corpus["give_up"]:
        return "\n".join(lines), tried[-1].expression
    hit = rng.choice(hits)
    check = f" Check: {hit.expression}={problem.target}, right." if rng.random() < corpus["check"] else ""
    return "\n".join([*lines, f"{hit.steps}.{check}"]), hit.expression


def write_reply(rng: random.Random, problem: Problem, phase: dict) -> str:
    way = rng.choices(list(phase["ways"]), list(phase["ways"].values()))[0]
    attempts = problem.attempts()
    hits = [attempt for attempt in attempts if attempt.value == problem.target]
    failing = [attempt for attempt in attempts if attempt.value != problem.target]
    if way == "search":
        return format_answer(*write_search(rng, problem, failing, hits), PLAN["layout"])
    right = rng.random() < phase["right"][way] or not failing
    attempt = rng.choice(hits if right else failing)
    if way == "bare":
        return attempt.expression
    return format_answer(f"{attempt.steps}.", attempt.expression, PLAN["layout"])


def draw_corpus(seed: str, phase: dict, count: int):
    """Yield `count` pairs (problem, reply); no problem of the test or of validation."""
    rng = random.Random(seed)
    for _ in range(count):
        problem = draw(rng, "train")
        yield problem, write_reply(rng, problem, phase)


if __name__ == "__main__":
    pretrain(PLAN, draw_corpus, Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "tiny-countdown")
