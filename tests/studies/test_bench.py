"""The GPU bench, as far as a CPU can take it: its parts run for real on a small model."""

import csv
import dataclasses
import subprocess
import sys

import pytest

from r1nb.machine.configs import grpo_config
from r1nb.recipes.loading import load_recipe
from r1nb.studies import bench
from r1nb.studies.bench import ENGINES, measure, random_llama, run_watched

SHAPE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 1000,
}  # fmt: skip


def test_a_real_run_is_measured_beside_its_plan(tmp_path):
    random_llama(tmp_path / "model", SHAPE)
    recipe = load_recipe(
        "tiny-cpu", model_name=str(tmp_path / "model"), max_steps=3, per_device_train_batch_size=8,
        torch_threads=1, max_completion_length=16, save_strategy="no", runs_dir=str(tmp_path / "runs"),
    )  # fmt: skip
    figures = measure(recipe)
    assert set(figures) == {"seconds a step", "tokens a second", "planned GB"}
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_each_competitor_is_a_recipe_that_can_be(engine, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(bench, "measure", lambda recipe: measured.append(recipe) or {})
    bench.main(engine, "/somewhere/llama")
    (recipe,) = measured
    assert grpo_config(recipe, "unused").use_vllm == ("vllm" in engine)
    assert (recipe.model.engine == "transformers") == (engine == "trl")
    assert (recipe.model.model_name, recipe.grpo["max_steps"]) == ("/somewhere/llama", 10)
    assert recipe.data.dataset == "bundled"
    assert capsys.readouterr().out == "{}\n"


def test_the_table_has_a_line_for_each_engine_also_for_one_that_failed(tmp_path, monkeypatch, capsys):
    machine = dataclasses.replace(bench.this_machine(), gpu="a card")
    monkeypatch.setattr(bench, "this_machine", lambda: machine)
    monkeypatch.setattr(bench, "random_llama", lambda folder, shape: None)

    def run(command):
        return (1, "no room", 79.0) if "trl" in command else (0, '{"seconds a step": 2.5}', 40.5)

    monkeypatch.setattr(bench, "run_watched", run)
    bench.bench_gpu(tmp_path / "results")
    with (tmp_path / "results" / "gpu-cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == list(ENGINES)
    assert [row["peak GB"] for row in rows] == ["40.5", "40.5", ""]
    assert "trl failed: no room\n" in capsys.readouterr().out


def test_the_peak_is_what_a_command_holds_beside_what_was_held_before(monkeypatch):
    held = iter([5.0, 6.0, 9.0, *[7.0] * 10_000])
    monkeypatch.setattr(bench, "used_gb", lambda: next(held))
    script = "import time; print('begun'); time.sleep(0.3); print('done')"
    assert run_watched([sys.executable, "-c", script]) == (0, "done", 4.0)


def test_a_command_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(bench, "used_gb", lambda: 0.0)
    code, last, _ = run_watched([sys.executable, "-m", "r1nb.studies.bench", "sloth"])
    assert (code, last) == (1, "r1nb: Unknown engine 'sloth'; run python -m r1nb.studies.bench gpu.")


def test_without_a_gpu_it_says_so_in_one_sentence():
    command = [sys.executable, "-m", "r1nb.studies.bench", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "r1nb: `r1nb.studies.bench gpu` measures a CUDA GPU, and this machine has none; see `make bench`."
    )
