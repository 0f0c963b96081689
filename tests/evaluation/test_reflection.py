"""Reflection and backtracking: what a completion does, and whether that changed its answer."""

import pandas
import pytest

from r1nb.errors import UserError
from r1nb.evaluation.reflection import (
    attempts_table,
    read_reflection,
    reflection_table,
    reflections_table,
    rescue_rates,
)
from r1nb.recipes.recipe import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.runs.run import Run
from r1nb.tasks.sources import SOURCES
from r1nb.text.prompts import THINK
from r1nb.views.plots import png, reflection_curves

QUESTION = SOURCES["Jiayi-Pan/Countdown-Tasks-3to4"].read({"nums": [3, 8, 1], "target": 24})["question"]
RESCUED = THINK.format_reply("8*3=24, 24+1=25, not 24.\n8*3=24, 24/1=24.", "8*3/1")
SPOILED = THINK.format_reply("8*3=24, 24*1=24.", "8*3+1")
IN_VAIN = THINK.format_reply("8+3=11, 11+1=12, not 24.\n8*3=24, 24+1=25.", "8*3+1")
FIRST = THINK.format_reply("8*3=24, 24*1=24. Check: 8*3*1=24, right.", "8*3*1")


@pytest.mark.parametrize(
    ("text", "hits", "checks", "words", "change"),
    [
        (RESCUED, (False, True), False, False, "rescued"),
        (SPOILED, (True,), False, False, "spoiled"),
        (IN_VAIN, (False, False), False, False, ""),
        (FIRST, (True,), True, False, ""),
        (THINK.format_reply("8 * 3 = 24. 24 * 1 = 24.", "8*3*1"), (True,), False, False, ""),
        (THINK.format_reply("8+3=11. 8*3=24, 24*1=24.", "8*3*1"), (False, True), False, False, "rescued"),
        (THINK.format_reply("8*3+1=25, not 24.\n- 8*3=24, 24*1=24.", "8*3*1"), (True,), False, False, ""),
        (THINK.format_reply("8*3=24, 24+1=24. Wait, 24+1=25, not 24.\n8*3=24, 24*1=24.", "8*3*1"),
         (False, True), False, True, "rescued"),
        (THINK.format_reply("8 × 3 = 24, 24 ÷ 1 = 24. Let me double-check.", "8*3/1"),  # noqa: RUF001
         (True,), True, True, ""),
        (THINK.format_reply("8*3=24.", "8*3*1"), (False,), False, False, ""),  # a number is left
        (THINK.format_reply("8*3=25, 25-1=24.", "8*3-1"), (False,), False, False, ""),  # not true
        (THINK.format_reply("8*3=24, 24*3=72, 72/3=24.", "8*3*1"), (False,), False, False, ""),
        (THINK.format_reply("8*3=24, 1/0=1.", "8"), (False,), False, False, ""),
        (THINK.format_reply("I wait.", "8*3*1"), (), False, True, ""),
        ("8*3*1", (), False, False, ""),
        ("", (), False, False, ""),
    ],
)  # fmt: skip
def test_what_a_completion_does(text, hits, checks, words, change):
    read = read_reflection(text, QUESTION)
    assert (read.hits, read.checks, read.words, read.change) == (hits, checks, words, change)
    assert read.backtracks == (len(hits) > 1 and not hits[0])
    assert read.right == (text in (RESCUED, FIRST) or "8*3*1\n<" in text or "8*3/1\n<" in text)


def test_another_kind_of_problem_is_refused():
    with pytest.raises(UserError, match="No Countdown problem: 'What is 2 \\+ 2\\?'"):
        read_reflection(RESCUED, "What is 2 + 2?")


def graded(text):
    return Graded(QUESTION, "24", text, (1,), False, True, True, True, {})


def test_going_back_is_compared_with_guessing_again():
    groups = [[graded(text) for text in (RESCUED, IN_VAIN, FIRST, SPOILED)]]
    n, rescued, guessed = rescue_rates(groups)
    assert (n, rescued) == (2, 0.5)
    assert guessed == pytest.approx(2 / 3)  # two of the three others hit with their first attempt
    assert rescue_rates([[graded("8*3*1")]]) == (0, 0.0, 0.0)


def test_the_tables_count_and_show():
    stages = {"before": [graded("8*3*1")], "after": [graded(t) for t in (RESCUED, IN_VAIN, FIRST, SPOILED)]}
    html = reflection_table(stages, "think").to_html()
    for cell in ("1.50", "50.0% [15.0, 85.0] of 4", "25.0% [4.6, 69.9] of 4", "50.0% [9.5, 90.5] of 2"):
        assert cell in html
    html = attempts_table(stages, "think").to_html()
    assert "50.0% [15.0, 85.0] of 4" in html
    assert "50.0% [9.5, 90.5] of 2" in html
    html = reflections_table(stages["after"], "think").to_html()
    assert [html.index(word) for word in ("rescued", "spoiled", "in vain")] == sorted(
        html.index(word) for word in ("rescued", "spoiled", "in vain")
    )


def test_the_curves_read_the_completion_log(tmp_path):
    run = Run.create(load_recipe("countdown-cpu", runs_dir=str(tmp_path)))
    (run.folder / "completions").mkdir()
    for step, texts in enumerate(([SPOILED, IN_VAIN], [RESCUED, FIRST]), 1):
        table = {"step": step, "prompt": QUESTION, "completion": texts, "answer": "24",
                 "r1_format_reward_func": 1.0, "countdown_reward_func": 1.0}  # fmt: skip
        pandas.DataFrame(table).to_parquet(run.folder / "completions" / f"completions_{step:05d}.parquet")
    figure = reflection_curves(run)
    attempts, habits, outcomes = figure.axes
    assert list(attempts.lines[0].get_ydata()) == [1.5, 1.5]
    assert [list(line.get_ydata()) for line in habits.lines] == [[0.5, 0.5], [0, 0.5], [0, 0]]
    assert [list(line.get_ydata()) for line in outcomes.lines] == [[0, 1], [0, 0.5], [0.5, 0]]
    assert png(figure).startswith(b"\x89PNG")
