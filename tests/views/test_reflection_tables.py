"""Tables and curves of reflection: how often an answer goes back, and with what result."""

import pandas

from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.tasks.sources import SOURCES
from r1nb.text.prompts import THINK
from r1nb.training.resume import new_run
from r1nb.views.plots import png
from r1nb.views.reflection import attempts_table, reflection_curves, reflection_table, reflections_table

QUESTION = SOURCES["Jiayi-Pan/Countdown-Tasks-3to4"].read({"nums": [3, 8, 1], "target": 24})["question"]
RESCUED = THINK.format_reply("8*3=24, 24+1=25, not 24.\n8*3=24, 24/1=24.", "8*3/1")
SPOILED = THINK.format_reply("8*3=24, 24*1=24.", "8*3+1")
IN_VAIN = THINK.format_reply("8+3=11, 11+1=12, not 24.\n8*3=24, 24+1=25.", "8*3+1")
FIRST = THINK.format_reply("8*3=24, 24*1=24. Check: 8*3*1=24, right.", "8*3*1")


def graded(text):
    return Graded(QUESTION, "24", text, (1,), False, True, True, True, {})


def test_the_tables_show_counts_and_rates():
    stages = {"before": [graded("8*3*1")], "after": [graded(t) for t in (RESCUED, IN_VAIN, FIRST, SPOILED)]}
    html = reflection_table(stages, THINK).to_html()
    for cell in ("1.50", "50.0% [15.0, 85.0] of 4", "25.0% [4.6, 69.9] of 4", "50.0% [9.5, 90.5] of 2"):
        assert cell in html
    html = attempts_table(stages, THINK).to_html()
    assert "50.0% [15.0, 85.0] of 4" in html
    assert "50.0% [9.5, 90.5] of 2" in html
    html = reflections_table(stages["after"], THINK).to_html()
    assert [html.index(word) for word in ("rescued", "spoiled", "in vain")] == sorted(
        html.index(word) for word in ("rescued", "spoiled", "in vain")
    )


def test_the_curves_read_the_completion_log(tmp_path):
    run = new_run(load_recipe("countdown-cpu", runs_dir=str(tmp_path)))
    (run.folder / "completions").mkdir()
    for step, texts in enumerate(([SPOILED, IN_VAIN], [RESCUED, FIRST]), 1):
        table = {"step": step, "prompt": QUESTION, "completion": texts, "answer": "24",
                 "r1_format_reward_func": 1.0, "countdown_reward_func": 1.0, "advantage": 0.0}  # fmt: skip
        pandas.DataFrame(table).to_parquet(run.folder / "completions" / f"completions_{step:05d}.parquet")
    figure = reflection_curves(run)
    attempts, habits, outcomes = figure.axes
    assert list(attempts.lines[0].get_ydata()) == [1.5, 1.5]
    assert [list(line.get_ydata()) for line in habits.lines] == [[0.5, 0.5], [0, 0.5], [0, 0]]
    assert [list(line.get_ydata()) for line in outcomes.lines] == [[0, 1], [0, 0.5], [0.5, 0]]
    assert png(figure).startswith(b"\x89PNG")
