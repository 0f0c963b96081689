"""The kept answers of the 0.5B model: complete, judged alike today, and what the pages say about them."""

import csv
import gzip
import json
import os
from dataclasses import replace

import pytest

from r1nb.errors import UserError
from r1nb.paths import CHECKOUT as ROOT
from r1nb.policy.policy import Completion
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import grade, summarize
from r1nb.studies import real_model
from r1nb.studies.real_model import (
    FOLDER,
    POLICIES,
    compare_rates,
    draw_rates,
    gain_parts,
    read_answers,
    read_validation,
)
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import REASONING
from r1nb.text.statistics import wilson


@pytest.fixture(scope="module")
def graded():
    return {name: read_answers(name) for name in POLICIES}


@pytest.mark.parametrize("name", POLICIES)
def test_each_file_answers_each_problem_once(name):
    with gzip.open(FOLDER / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line)["index"] for line in file] == list(range(1319))


def test_the_questions_and_golds_are_those_of_gsm8k(gsm8k_dir, graded):
    rows = load_rows(gsm8k_dir, "test")
    for answers in graded.values():
        assert [(g.question, g.answer) for g in answers] == list(
            zip(rows["question"], rows["answer"], strict=True)
        )


def test_the_summary_and_the_pages_say_what_the_answers_say(graded):
    with (FOLDER / "summary.csv").open(encoding="utf-8") as file:
        summary = {row["policy"]: row for row in csv.DictReader(file)}
    assert summary.keys() == graded.keys()
    pages = [path.read_text() for path in (ROOT / "README.md", ROOT / "data/results/README.md")]
    for name, answers in graded.items():
        rates = summarize(answers)
        assert {rate: float(summary[name][rate]) for rate in real_model.SHOWN} == pytest.approx(
            {rate: rates[rate] for rate in real_model.SHOWN}, abs=1e-4
        )
        for page in pages:
            assert f"{rates['strict']:.1%}" in page
            assert f"{rates['lenient']:.1%}" in page


def test_the_models_own_answers_are_right_in_the_format_and_to_training_questions(request):
    rows, judge = load_rows(str(FOLDER / "own.jsonl"), "train"), load_recipe(real_model.RECIPE).judge()
    assert len(rows) == 215
    for row in rows:
        text = REASONING.format_reply(row["solution"], row["answer"])
        (graded,) = grade({"question": [row["question"]], "answer": [row["answer"]]}, [whole(text)], judge)
        assert graded.strict, text
        assert graded.format, text
        assert "```" not in text
    if os.environ.get("R1NB_GSM8K_DIR"):
        asked = load_rows(request.getfixturevalue("gsm8k_dir"), "train[:1400]")
        assert {*zip(rows["question"], rows["answer"], strict=True)} <= {
            *zip(asked["question"], asked["answer"], strict=True)
        }


def test_the_page_says_what_the_starts_reached():
    page = (FOLDER / "README.md").read_text()
    for run, step in (("gsm8k-sft-own", 24), ("gsm8k-sft-solutions", 24), ("gsm8k-more-sft-solutions", 40)):
        answers = read_validation(run, step)
        right = sum(answer.strict for answer in answers)
        low, high = (f"{100 * end:.1f}" for end in wilson(right, 400))
        assert len(answers) == 400
        assert f"{right / 400:.1%} [{low}, {high}]" in page


def whole(text: str) -> Completion:
    return Completion(text, (1,), cut=False)


def test_the_gain_is_significant_in_strict_and_in_lenient_accuracy(graded):
    for comparison in compare_rates(graded["raw"], graded["after"]).values():
        assert comparison.p < 1e-4
        assert comparison.interval[0] > 0.05


def test_the_parts_add_up_to_the_gain(graded):
    parts = gain_parts(graded["raw"], graded["after"])
    *single, whole = (mean for mean, *_ in parts.values())
    assert sum(single) == pytest.approx(whole)
    assert whole == pytest.approx(
        summarize(graded["after"])["strict"] - summarize(graded["raw"])["strict"], abs=1e-6
    )
    assert real_model.MEANING.keys() == parts.keys()
    assert len(draw_rates(graded).axes[0].patches) == 3 * len(graded)


def test_a_missing_file_and_a_verdict_that_changed_are_sentences(monkeypatch, graded):
    with pytest.raises(UserError, match=r"none\.jsonl\.gz is missing"):
        read_answers("none")
    monkeypatch.setattr(
        real_model, "grade", lambda *args: [replace(g, strict=not g.strict) for g in graded["raw"]]
    )
    with pytest.raises(UserError, match="problem 0 is judged otherwise now"):
        read_answers("raw")
