"""Tables show an answer that the judge could not score as not judged, not as wrong."""

import json
from types import SimpleNamespace

import pandas
import pytest
from written_run import IDEAL, write_run

from r1nb.evaluation.comparison import compare
from r1nb.policy.policy import Completion
from r1nb.recipes.settings import Sampling
from r1nb.rewards.grading import Graded, make_judge, summarize
from r1nb.rewards.registry import reward
from r1nb.runs.evaluations import MOMENTS
from r1nb.training.resume import new_run
from r1nb.views import tables
from r1nb.views.plots import draw_validation, new_figure, pass_curves, png, training_curves
from r1nb.views.report import write_report
from r1nb.views.stage_results import stages_table
from r1nb.widgets.inspector import Inspector
from r1nb.widgets.playgrounds import group_playground, reward_playground

DASH = "–"  # noqa: RUF001
ROW = {"question": "1 + 1?", "answer": "2"}


@pytest.fixture
def unsure(monkeypatch):
    """Return a reward that judges answers, but cannot judge answers without a digit."""
    from r1nb.rewards import registry

    monkeypatch.setattr(registry, "_OWN", dict(registry._OWN))

    @reward(high=1.0, judges="answer")
    def unsure_reward_func(text: str, answer: str):
        if not any(letter.isdigit() for letter in text):
            return None, "the judge could not be asked"
        return float(answer in text), "asked"

    return unsure_reward_func


def cells(table) -> list[list[str]]:
    return table.data.to_numpy().tolist()


def test_the_styles_of_a_table_are_inline_and_its_text_is_escaped():
    html = tables.table_of([["<td>", "a\nb"]], ["<th>", "x"]).set_caption("c")._repr_html_()
    assert "<style" not in html
    assert html.count("<td style=") == html.count("<th style=") == 2
    assert "&lt;td&gt;" in html
    assert "a<br>b" in html


def graded(strict, question="1 + 1?", **others) -> Graded:
    rewards = {"judge_reward_func": None if strict is None else float(strict)}
    return Graded(question, "2", "two", ids=(7,), cut=False, strict=strict, lenient=strict, format=False,
                  rewards=rewards, right=strict, **others)  # fmt: skip


def test_side_by_side_marks_right_wrong_and_not_judged(unsure):
    said = ["It is 2.", "It is 3.", "It is two."]
    policy = SimpleNamespace(
        sides={"base": False, "adapter": True},
        generate=lambda prompts, sampling, adapter: [Completion(text, (1,), False) for text in said],
    )
    judge = make_judge({"unsure_reward_func": 1.0})
    table = tables.side_by_side(policy, [ROW] * 3, judge, Sampling(8))
    assert list(table.data.columns) == ["question", "gold", "base", "adapter"]
    assert [row[3] for row in cells(table)] == ["✓ It is 2.", "✗ It is 3.", f"{DASH} It is two."]
    table = tables.side_by_side(policy, [{"question": "?"}, {"question": "?", "answer": None}, ROW], judge, 1)
    assert [row[1:3] for row in cells(table)] == [["", said[0]], ["", said[1]], ["2", f"{DASH} It is two."]]
    table = tables.side_by_side(policy, [{"question": "?"}] * 3, judge, 1)
    assert list(table.data.columns) == ["question", "base", "adapter"]


def test_rates_of_answers_that_were_not_judged_are_dashes():
    table = tables.rates_table(
        {"all": summarize([graded(None)] * 2), "half": summarize([graded(None), graded(True)])}
    )
    rows = {row[0]: row[1:] for row in cells(table)}
    assert rows["strict"] == [DASH, "100.0% [20.7, 100.0]"]  # one answer was judged
    assert rows["judge"] == [DASH, "1.000"]
    assert rows["format"][0].startswith("0.0%")


@pytest.fixture
def unjudged_run(tiny_recipe):
    """Return a run whose judge answered only in the middle of it."""
    tiny_recipe.rewards = {"correctness_reward_func": 1.0, "xmlcount_reward_func": 1.0}
    run = write_run(tiny_recipe, 16, texts=(IDEAL, "twenty-four"))
    for step in (1, 16):
        path = run.folder / "completions" / f"completions_{step:05d}.parquet"
        log = pandas.read_parquet(path)
        log.loc[log["completion"] == "twenty-four", "correctness_reward_func"] = None
        log.loc[log["completion"] == "twenty-four", "advantage"] = [0.0, float("nan"), -1.0, -1.0]
        log.to_parquet(path)
        records = json.loads((run.folder / "validation" / f"{step:05d}.json").read_text())
        records[1]["strict"] = None
        run.write_validation(step, records)
    rates = {f"validation/{rate}": None for rate in ("strict", "lenient")}
    rates |= {"validation/n": 60, "validation/format": 0.5}
    means = {"reward": None, "rewards/correctness_reward_func/mean": None}
    run.append({"step": 17, "time": 34.0, "loss": 0.0} | means | rates)
    for moment, strict in zip(MOMENTS, (None, True, None), strict=True):
        run.write_evaluation(moment, {"test": [graded(strict, question=str(i)) for i in range(3)]})
        run.write_samples(moment, "test", [[graded(strict)] * 8])
    return run


def test_validation_answers_that_were_not_judged_have_dashes(unjudged_run):
    (first, second) = cells(tables.answers_table(unjudged_run, 8))
    assert [cell[0] for cell in first[2:]] == ["✓", "✓"]
    assert [cell[0] for cell in second[2:]] == [DASH, DASH]


def test_completions_that_were_not_judged_have_dashes(unjudged_run):
    rows = cells(tables.completion_table(unjudged_run, [1], each=8))
    assert {row[3] for row in rows if row[2].startswith("twenty-four")} == {DASH}
    assert {row[3] for row in rows if row[2].startswith("<reasoning>")} == {"0.5"}
    assert DASH in [row[-1] for row in rows]
    shown = Inspector(str(unjudged_run.folder.parent)).completions.value
    assert f">correctness {DASH}<" in shown
    assert "nan" not in shown
    assert "<b>+0.00</b>" in shown
    assert f"<b>{DASH}</b>" in shown
    assert shown.count("✓ right") + shown.count("✗ wrong") < 8  # no verdict where nobody judged


def test_evaluations_that_were_not_judged_have_dashes(unjudged_run):
    run = unjudged_run
    strict, *_ = cells(tables.accuracy_table(run))
    assert strict == ["strict", DASH, "100.0% [43.9, 100.0]", DASH]
    assert cells(tables.kinds_table(run, "test"))[0][3:] == [DASH, "100.0% [43.9, 100.0]", DASH]
    assert {row[1] for row in cells(tables.gain_table(run))} == {f"{DASH} [{DASH}, {DASH}]"}
    assert cells(tables.changes_table(run, "test")) == []
    passed = cells(tables.pass_table(run))
    assert [row[0] for row in passed[::2]] == ["test (0)", "test (1)", "test (0)"]
    assert passed[0][3:] == [DASH] * 4
    assert passed[2][3] == "100.0% [20.7, 100.0]"
    assert passed[3][3:5] == [DASH, DASH]  # no majority among fewer than 3 samples
    assert len(pass_curves(run).axes[0].lines) == 1
    assert cells(stages_table({"the run": run}, "test"))[2][4] == DASH


def test_figures_and_report_of_a_run_that_was_not_judged(unjudged_run):
    axes = new_figure(4, 3).subplots()
    draw_validation(axes, unjudged_run)
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 3]
    assert png(training_curves(unjudged_run))
    page = write_report(unjudged_run).read_text()
    assert f">{DASH} twenty-four" in page
    assert ">✗ twenty-four" not in page
    assert ">nan<" not in page


def test_missing_scores_are_shown_as_dashes_and_not_as_zeros(unsure):
    names = ["unsure_reward_func", "xmlcount_reward_func"]
    rows = cells(tables.scores_table(names, {"asked": "2", "not": "two"}, "2"))
    assert rows == [["asked", "1.000", "0.000", "1.000"], ["not", DASH, "0.000", "0.000"]]
    assert cells(tables.scores_table(names[:1], {"not": "two"}, "2")) == [["not", DASH, DASH]]
    assert cells(tables.reasons_table(names[0], ["two"], "2")) == [
        ["two", DASH, "the judge could not be asked"]
    ]


def test_playgrounds_name_rewards_that_were_not_judged(unsure):
    judge = make_judge({"unsure_reward_func": 1.0, "xmlcount_reward_func": 1.0})
    shown = reward_playground(judge, "two", {"answer": "2"}).children[2]
    assert f">{DASH}<" in shown.value
    assert "rewards that were not judged count as 0" in shown.value
    *pairs, _, _ = group_playground(judge, ["2", "3", "two"], {"answer": "2"}).children
    notes = [pair.children[1].value for pair in pairs]
    assert ["not judged, counted as 0: unsure" in note for note in notes] == [False, False, True]


def test_a_run_without_figures_has_empty_tables(tiny_recipe):
    run = new_run(tiny_recipe)
    for table in (tables.accuracy_table(run), tables.pass_table(run), tables.answers_table(run, 8)):
        assert cells(table) == []
        assert table.to_html()


def test_a_table_by_column_fills_empty_cells_with_dashes():
    table = tables.table_by_column({"one": {"a": "1", "b": "2"}, "two": {"b": "3", "c": "4"}})
    assert cells(table) == [["a", "1", DASH], ["b", "2", "3"], ["c", DASH, "4"]]


def test_two_runs_are_compared_by_their_answers_to_the_same_problems(tiny_recipe):
    first, second = (new_run(tiny_recipe) for _ in range(2))
    sides = [(True, False, False), (True, True, False)]
    for run, side in zip((first, second), sides, strict=True):
        answered = [graded(right, question=str(i)) for i, right in enumerate(side)]
        run.write_evaluation("before", {"test": [graded(False, question=str(i)) for i in range(3)]})
        run.write_evaluation("after", {"test": answered})
    settings, rates, counts = tables.compare_runs([first, second])
    assert cells(settings) == []  # the recipes are the same
    assert list(rates.data.columns[1:]) == [("test", first.name), ("test", second.name)]
    assert [cell[:5] for cell in cells(rates)[0][1:]] == ["33.3%", "66.7%"]
    assert [line[1:] for line in cells(counts)] == [["1", "0"], ["1", "1"]]
    second.write_evaluation("after", {"test": [graded(True, question="other")]})
    assert len(tables.compare_runs([first, second])) == 2  # other problems cannot be compared one by one
    assert [line[:2] for line in cells(tables.wrong_table(first, "test"))] == [["✗ → ✗", "1"], ["✗ → ✗", "2"]]
    assert cells(tables.wrong_table(first, "elsewhere")) == []


def test_a_comparison_is_shown_as_the_four_counts_of_problems():
    """The names of the policies are text, not markup; the difference and p are below the counts."""
    verdicts = [(True, True)] + [(True, False)] * 2 + [(False, True)] * 9 + [(False, False)] * 4
    sides = [[graded(v, question=str(i)) for i, v in enumerate(side)] for side in zip(*verdicts, strict=True)]
    table = tables.comparison_table(compare(*sides), "<b>base", "adapter")
    assert list(table.data.columns) == ["", "adapter: right", "adapter: wrong"]
    assert cells(table) == [["<b>base: right", "1", "2"], ["<b>base: wrong", "9", "4"]]
    page = table.to_html()
    assert "&lt;b&gt;base: right" in page
    assert "<b>" not in page
    assert "Difference: +43.8 points [" in page
    assert "exact test: p = 0.065.</caption>" in page
