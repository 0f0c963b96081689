"""The figures have the right panels, lines and labels."""

import os

import pytest
from written_run import IDEAL, append_step, write_run

from r1nb.recipes.loading import load_recipe
from r1nb.views.plots import length_histogram, png, told_apart, training_curves
from r1nb.views.reflection import reasoning_curves
from r1nb.views.stage_results import draw_stages, work
from r1nb.views.strip import strip


def panels(figure) -> dict:
    return {axes.get_title(): axes for part in figure.subfigs for axes in part.axes}


def test_the_training_curves_have_a_panel_for_each_quantity_and_reward(tiny_recipe):
    run = write_run(tiny_recipe, 40)
    run.append({"step": 40, "alarm": "cut_off", "sentence": "Too short."})
    drawn = panels(training_curves(run))
    assert list(drawn) == [
        "Total reward", "60 validation problems, greedy", "Completion length, tokens", "Completions cut off",
        "Groups without variance", "Entropy, nats a token",
        "correctness", "int", "strict_format", "soft_format", "xmlcount",
    ]  # fmt: skip
    for axes in drawn.values():
        assert axes.get_xlim() == (0, 40)
    shown = [text.get_text() for text in drawn["Total reward"].get_legend().get_texts()]
    assert shown == ["mean of the batch", "± deviation", "alarm"]
    assert [text.get_text() for text in drawn["Total reward"].texts] == [" best possible"]


def test_the_strip_has_four_panels_for_one_run_and_for_several(tiny_recipe):
    run = write_run(tiny_recipe, 30)
    figure, last = strip(run)
    assert last == 30
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Total reward", "60 validation problems, greedy", "Rewards, share of maximum",
                      "Completion length, tokens"]  # fmt: skip
    shares = figure.axes[2]
    assert len(shares.lines) == 5
    assert shares.lines[0].get_ydata()[-1] == pytest.approx(0.125)  # 0.25 of at most 2.0
    figure, _ = strip(run, write_run(tiny_recipe, 20))
    assert [axes.get_title() for axes in figure.axes] == [
        "Total reward", "Strict accuracy", "Completion length, tokens", "Completions cut off"
    ]  # fmt: skip
    for axes in figure.axes[2:]:
        assert {max(line.get_xdata()) for line in axes.lines} == {20, 30}  # each ends where its run ended


def test_two_runs_are_drawn_in_the_same_panels_with_their_names(tiny_recipe):
    runs = [write_run(tiny_recipe, 20), write_run(tiny_recipe, 30)]
    runs[1].append({"step": 31, "kl": 0.1})
    drawn = panels(training_curves(*runs, smoothing=0.5))
    assert "KL to the reference, nats a token" in drawn
    assert "Strict accuracy, validation problems" in drawn
    assert [line.partition(": ")[0] for line in legend_of(training_curves(*runs))] == [
        "tiny-cpu-001", "tiny-cpu-002"
    ]  # fmt: skip
    assert drawn["int"].get_xlim() == (0, 31)
    assert drawn["int"].lines[1].get_linestyle() != drawn["int"].lines[3].get_linestyle()


def legend_of(figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_each_curve_stops_where_its_run_stopped(tiny_recipe):
    tiny_recipe.grpo["max_steps"] = 100
    runs = [write_run(tiny_recipe, steps) for steps in (33, 20)]
    for axes in panels(training_curves(*runs)).values():
        long, short = axes.lines[:2]
        ends = (32, 16) if axes.get_title().startswith("Strict") else (33, 20)
        assert (long.get_xdata()[-1], short.get_xdata()[-1]) == ends


def test_the_x_axis_ends_at_the_planned_steps_from_the_start(tiny_recipe):
    tiny_recipe.grpo["max_steps"] = 100
    run, longer = write_run(tiny_recipe, 1), write_run(tiny_recipe, 30)
    assert panels(training_curves(run))["int"].get_xlim() == (0, 100)
    append_step(run, 2, [])
    assert panels(training_curves(run))["int"].get_xlim() == (0, 100)
    assert panels(training_curves(run, longer))["int"].get_xlim() == (0, 100)
    for stopped in (run, longer):
        os.utime(stopped.folder / "history.jsonl", (1e9, 1e9))
    assert panels(training_curves(longer))["int"].get_xlim() == (0, 100)
    assert panels(training_curves(run, longer))["int"].get_xlim() == (0, 30)  # no room for what never comes


def test_the_legend_says_in_what_the_runs_differ(tmp_path):
    def write(**changes):
        return write_run(load_recipe(runs_dir=str(tmp_path / "runs"), **changes), 3)

    first, second = write(learning_rate=3e-4), write(learning_rate=1e-4, name="smaller $x$ steps")
    assert told_apart([first, second]) == ["learning_rate 0.0003", "learning_rate 0.0001"]
    shown = legend_of(training_curves(first, second))
    assert shown[1].startswith("smaller-$x$-steps-001 (learning_rate 0.0001): step 3 of 112, reward 0.20")
    assert png(training_curves(first, second))  # the dollar signs are no formula
    (tmp_path / "mine").mkdir()
    many = write(learning_rate=3e-4, dataset=str(tmp_path / "mine"), r=4, seed=9, eval_every=3,
                 rewards={"correctness_reward_func": 1.0})  # fmt: skip
    assert told_apart([first, many]) == [
        "dataset bundled, seed 1, int 0.0 and 5 more", "dataset mine, seed 9, no int and 5 more"
    ]  # fmt: skip
    assert told_apart([first, write(learning_rate=3e-4)]) == ["", ""]


def test_a_long_legend_stays_inside_the_picture(tmp_path):
    changes = {"model_name": "x" * 99, "dataset": "own/" + "y" * 99, "max_prompt_length": 100}
    recipes = [load_recipe(runs_dir=str(tmp_path), name="n" * 60, **more) for more in ({}, changes)]
    figure = training_curves(*(write_run(recipe, 3) for recipe in recipes))
    png(figure)  # computes the layout
    box = figure.legends[0].get_window_extent()
    assert box.x1 <= figure.bbox.x1
    tops = [axes.get_tightbbox().y1 for part in figure.subfigs for axes in part.axes]
    assert max(tops) < box.y0


def test_a_histogram_shows_the_limit():
    figure = length_histogram({"short": [10, 12], "long": [90, 120, 130]}, 100)
    (axes,) = figure.axes
    assert axes.texts[0].get_text() == "max_prompt_length "
    assert axes.get_xlim() == (0, 138)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["short", "long"]
    assert png(figure).startswith(b"\x89PNG")


def test_reasoning_curves_show_length_and_checks(tiny_recipe):
    checked = IDEAL.replace("4*6=24", "4*6=23. Check: 4*6=24, not right.")
    length, checks = reasoning_curves(write_run(tiny_recipe, 4, texts=(checked, IDEAL))).axes
    assert length.get_title() == "Mean completion length (cut off: 0% at the end)"
    assert [line.get_label() for line in checks.lines] == [
        "with a check", "corrected a wrong step", "spoiled a right step",
    ]  # fmt: skip
    assert list(checks.lines[0].get_ydata()) == pytest.approx([0.5] * 4)


def test_each_stage_is_drawn_after_the_work_of_the_stages_before(tmp_path):
    runs = [write_run(load_recipe(runs_dir=str(tmp_path / name)), 16) for name in "ab"]
    (axes,) = draw_stages({"first": runs[0], "second": runs[1]}, runs[0]).axes
    cost = sum(work(runs[0]))
    first, _, second, _, alone = (list(line.get_xdata()) for line in axes.lines)
    assert first == alone == pytest.approx([cost / 16, cost])
    assert second == pytest.approx([cost + cost / 16, 2 * cost])
