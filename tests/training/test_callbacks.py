"""The callbacks of GRPOTrainer: their memory does not grow, and their errors do not stop the training."""

import gc
import tracemalloc
from types import SimpleNamespace

import torch
from written_run import write_run

from r1nb.machine.configs import grpo_config
from r1nb.training.callbacks import Recorder, Watchdog
from r1nb.training.resume import new_run
from r1nb.widgets.live import LiveView

MODEL = torch.nn.Module()
MODEL.register_parameter("layer_lora_B", torch.nn.Parameter(torch.tensor([3.0, 4.0])))


def state(step: int):
    return SimpleNamespace(global_step=step, max_steps=10_000, is_world_process_zero=True)


def logs(recipe) -> dict:
    figures = dict.fromkeys(("loss", "grad_norm", "entropy", "frac_reward_zero_std"), 0.5)
    figures |= {f"rewards/{name}/mean": 0.3 for name in recipe.rewards}
    lengths = {"completions/mean_length": 20.0, "completions/clipped_ratio": 0.0}
    return {"reward": 1.0, "reward_std": 0.4, **figures, **lengths}


def test_the_recorder_logs_the_norm_of_the_adapter(tiny_recipe):
    run = new_run(tiny_recipe)
    Recorder(run).on_log(None, state(1), None, logs=logs(tiny_recipe), model=MODEL)
    Recorder(run).on_log(None, state(2), None, logs={"train_runtime": 1.0}, model=MODEL)
    Recorder(run).on_log(None, state(3), None, logs=logs(tiny_recipe), model=torch.nn.Linear(2, 2))
    Recorder(run).on_log(None, state(4), None, logs={"loss": 0.1}, model=MODEL)  # second use of a batch
    assert run.series("adapter/norm") == ([1, 3, 4], [5.0, 0.0, 5.0])
    assert run.series("reward")[0] == [1, 3]


def test_memory_does_not_grow_with_the_steps(tiny_recipe, capsys):
    run = new_run(tiny_recipe)
    args = grpo_config(tiny_recipe, run.folder)
    callbacks = [Recorder(run), Watchdog(run, tiny_recipe.judge()), LiveView(run)]
    for callback in callbacks[1:]:
        callback.on_train_begin(args, state(0), None)

    def train(first: int, last: int) -> int:
        for step in range(first, last):
            for callback in callbacks:
                callback.on_log(args, state(step), SimpleNamespace(), logs=logs(tiny_recipe), model=MODEL)
        for callback in callbacks[1:]:  # their time budget may have skipped the last step
            callback.on_train_end(args, state(last), SimpleNamespace())
        gc.collect()
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/r1nb/*")])
        return sum(line.size for line in ours.statistics("filename"))

    tracemalloc.start()
    try:
        early, late = train(1, 100), train(100, 600)
    finally:
        tracemalloc.stop()
    assert len(run.series("reward")[0]) == 599
    assert "failed" not in capsys.readouterr().out
    assert late < early + 50_000  # bytes; the history grew by about 400,000


def test_the_live_view_keeps_to_its_share_of_the_time(tiny_recipe, monkeypatch):
    run, clock = write_run(tiny_recipe, 1), [0.0]
    monkeypatch.setattr("r1nb.training.callbacks.time.perf_counter", lambda: clock[0])

    def draw(*args):
        clock[0] += 1.0  # drawing is slow
        return b"picture"

    monkeypatch.setattr("r1nb.widgets.live.png", draw)
    view = LiveView(run)
    view.on_train_begin(None, state(0), None)
    for step in range(1, 1001):
        clock[0] += 1.0
        view.on_log(None, state(step), None, logs={"loss": 1.0})
    assert 15 <= view.seconds <= 0.05 * clock[0]


def test_nan_stops_the_training_at_once(tiny_recipe):
    """Even if the time budget of the watchdog is used up, because the next rollout would fail."""
    run, control = write_run(tiny_recipe, 3), SimpleNamespace(should_training_stop=False)
    watchdog, model = Watchdog(run, tiny_recipe.judge()), torch.nn.Module()
    watchdog.seconds = 1e9
    recorder, args = Recorder(run), grpo_config(tiny_recipe, run.folder)
    model.register_parameter("lora_B", torch.nn.Parameter(torch.tensor([1.0])))
    for step, weight in ((4, 1.0), (5, float("nan"))):
        model.lora_B.data.fill_(weight)
        line = logs(tiny_recipe)
        for callback in (recorder, watchdog):
            callback.on_log(args, state(step), control, logs=line, model=model)
        assert control.should_training_stop == (step == 5)
    assert [line["alarm"] for line in run.alarms()] == ["not_finite"]


def test_an_error_in_a_callback_is_printed_once_and_training_continues(tiny_recipe, monkeypatch, capsys):
    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("r1nb.widgets.live.png", fail)
    view = LiveView(write_run(tiny_recipe, 1))
    for step in (1, 2):
        view.on_train_end(None, state(step), None)
    said = "LiveView failed, training goes on: OSError: No space left on device"
    progress, *others = capsys.readouterr().out.splitlines()
    assert progress.startswith("step 1 of 2, reward 0.07")
    assert others == [said]
