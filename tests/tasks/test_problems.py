"""The bundled problems are right and have GSM8K's format, and their splits and the corpus are disjoint."""

import json
import re
from collections import Counter

import make_policy
import make_problems
import pytest
from make_problems import SEEN, SIZES, UNSEEN, bundled, draw, split_of

from r1nb.paths import DATA
from r1nb.tasks.rows import normalize

TESTS = ("test", "test_unseen_kinds")


def shipped(split: str) -> list[dict]:
    lines = (DATA / "problems" / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("split", SIZES)
def test_the_script_makes_the_shipped_files(split):
    assert shipped(split) == [problem.row() for problem in bundled(split)]


@pytest.mark.parametrize("split", SIZES)
def test_every_step_is_true_and_leads_to_the_gold(split):
    for row in shipped(split):
        solution, _, gold = row["answer"].rpartition("\n#### ")
        marks = re.findall(r"(\d+)([-+*/])(\d+)=<<\1\2\3=(\d+)>>\4", solution)
        assert 1 <= len(marks) <= 4
        assert len(marks) == solution.count("<<")
        for left, operator, right, result in marks:
            assert make_problems.OPERATORS[operator](int(left), int(right)) == int(result)
        assert marks[-1][3] == gold


def test_there_are_twelve_kinds_and_others_that_are_not_trained_on():
    assert len(SEEN) >= 12
    assert len(UNSEEN) >= 4
    for split in SIZES:
        expected = UNSEEN if split == "test_unseen_kinds" else SEEN
        assert set(Counter(row["kind"] for row in shipped(split))) == set(expected)


@pytest.fixture(scope="module")
def sealed():
    """Return the questions and the (kind, numbers) of both test splits and of validation."""
    problems = [p for split in (*TESTS, "validation") for p in bundled(split)]
    questions = {normalize(p.question) for p in problems}
    numbers = {(p.kind, tuple(sorted(p.numbers))) for p in problems}
    return questions, numbers


def test_the_training_split_has_no_validation_or_test_problem(sealed):
    questions, numbers = sealed
    for problem in bundled("train"):
        assert normalize(problem.question) not in questions
        assert (problem.kind, tuple(sorted(problem.numbers))) not in numbers


@pytest.mark.parametrize("phase", make_policy.PLAN["corpus"]["phases"])
def test_the_pretraining_corpus_has_no_validation_or_test_problem(sealed, phase):
    questions, numbers = sealed
    for problem, _ in make_policy.phase_corpus(phase):
        assert normalize(problem.question) not in questions
        assert (problem.kind, tuple(sorted(problem.numbers))) not in numbers


def test_a_problem_of_the_wrong_split_is_never_drawn():
    import random

    rng = random.Random(0)
    for split in ("train", "validation", "test"):
        problem = draw(rng, "packs", split)
        assert split_of("packs", problem.numbers) == split
        assert split_of("packs", problem.numbers[::-1]) == split


def test_the_corpus_has_its_stated_shares():
    plan = make_policy.PLAN["corpus"]
    for name, phase in plan["phases"].items():
        answers = [answer for _, answer in make_policy.draw_corpus("shares", phase, 20_000)]
        xml = sum("</answer>" in a for a in answers) / len(answers)
        bare = sum(a.isdigit() for a in answers) / len(answers)
        assert xml == pytest.approx(phase["ways"]["xml"], abs=0.02), name
        assert bare == pytest.approx(phase["ways"]["bare"], abs=0.02), name
        steps = [a for a in answers if not a.isdigit()]
        assert any(", not " in a for a in steps)
        assert any(", right." in a for a in steps)
