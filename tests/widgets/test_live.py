"""The live view outside a notebook prints lines, in a terminal and in a log file."""

from types import SimpleNamespace

import pytest
from written_run import append_step, write_run

from r1nb.training.resume import new_run
from r1nb.widgets.live import LiveView


def state(step: int, max_steps: int = 10_000):
    return SimpleNamespace(global_step=step, max_steps=max_steps, is_world_process_zero=True)


@pytest.mark.parametrize("steps", [0, 40])
def test_in_a_terminal_the_live_view_prints_a_line(tiny_recipe, capsys, steps):
    tiny_recipe.grpo["max_steps"] = 100
    run = new_run(tiny_recipe)
    for step in range(1, steps + 1):
        append_step(run, step, [])
    LiveView(run).on_train_end(None, state(steps), None)
    expected = "step 40 of 100, reward 2.67, stopped: run it again to resume" if steps else "step 0 of 100"
    assert capsys.readouterr().out.strip() == expected
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_log_of_many_steps_stays_short(tiny_recipe, capsys, monkeypatch):
    monkeypatch.setattr("r1nb.widgets.live.png", lambda figure: b"picture")
    monkeypatch.setattr("r1nb.widgets.live.training_curves", lambda run: None)
    run = new_run(tiny_recipe)
    view, view.SHARE = LiveView(run), 1e9
    for step in range(1, 201):
        append_step(run, step, [])
        view.on_log(None, state(step, 200), None, logs={"loss": 1.0})
    view.on_train_end(None, state(200, 200), None)
    lines = capsys.readouterr().out.splitlines()
    assert 45 <= len(lines) <= 55
    assert lines[0].startswith("step 1 of")
    assert lines[-1].startswith("step 200 of")


def test_in_a_notebook_a_run_that_stops_early_has_its_picture(tiny_recipe, monkeypatch):
    run, called = write_run(tiny_recipe, 3), []
    panel = SimpleNamespace(draw=lambda run: called.append("draw"), close=lambda: called.append("close"))
    monkeypatch.setattr("r1nb.widgets.live.get_ipython", lambda: SimpleNamespace(kernel=True))
    view = LiveView(run)
    view.panel = panel
    view.on_log(None, state(3), None, logs={"loss": 1.0})
    assert not (run.folder / "curves.png").exists()
    view.on_train_end(None, state(3), None)
    assert called == ["draw", "close"]
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_error_when_the_panel_closes_does_not_end_the_training(tiny_recipe, monkeypatch, capsys):
    def fail():
        raise RuntimeError("no frontend")

    monkeypatch.setattr("r1nb.widgets.live.get_ipython", lambda: SimpleNamespace(kernel=True))
    view = LiveView(write_run(tiny_recipe, 3))
    view.panel = SimpleNamespace(close=fail)
    view.on_train_end(None, state(3), None)
    assert "LiveView failed, training goes on: RuntimeError: no frontend" in capsys.readouterr().out
