"""The GPU bench, rehearsed on a CPU: parts that fail, are killed and go on; its bundle; its tables."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import make_gpu_results
import psutil
import pytest

from r1nb.errors import UserError
from r1nb.machine.cards import machine_with
from r1nb.machine.hardware import Machine
from r1nb.paths import read_json, write_json
from r1nb.studies import gpu_bench
from r1nb.studies.gpu_bench import begin, choose_parts, list_parts, run_parts
from r1nb.studies.gpu_bundle import pack

SMALL = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 24}
PROBLEMS = 16


def small_parts(folder: Path) -> dict:
    """Return the parts of a rehearsal, smaller: batches of one answer, and one training step in a process."""
    parts = list_parts(folder, [], "tiny-cpu", SMALL, {"test_problems": PROBLEMS}, minutes=5)
    for name, changes in {
        "accuracy-before": {},
        "accuracy-train": {"max_steps": 2, **SMALL},
        "accuracy-after": {},
    }.items():
        parts[name][1]["changes"] |= {"eval_batch_size": 1, "torch_threads": 1} | changes
    parts["accuracy-train"][1]["stop_after"] = 0
    del parts["imports"], parts["speed-trl"], parts["speed-unsloth"], parts["download"]
    return parts


def processes_on(folder: Path) -> list[psutil.Process]:
    here = [p for p in psutil.process_iter() if p.pid != os.getpid() and p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in here if str(folder) in " ".join(p.cmdline())]


def answers_before(folder: Path) -> dict:
    files = list(folder.glob("answers-before-*.json"))
    return read_json(files[0], {}) if files else {}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return a folder in which the bench was killed while it answered, and the answers kept so far."""
    folder = tmp_path_factory.mktemp("bench")
    code = "import json, sys; from pathlib import Path; from r1nb.studies.gpu_bench import run_parts; " \
           "run_parts(Path(sys.argv[1]), json.loads(sys.argv[2]))"  # fmt: skip
    parts = small_parts(folder)
    begin(folder, Machine(2, 13), {})
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), json.dumps(parts)])
    while len(answers_before(folder)) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):  # its part ends, too, since its pipe is closed
        if not processes_on(folder):
            break
        time.sleep(0.1)
    assert processes_on(folder) == []
    return folder, answers_before(folder)


@pytest.fixture(scope="module")
def resumed(killed):
    folder, _ = killed
    made = (folder / "speed-r1nb.json").stat().st_mtime_ns
    assert run_parts(folder, small_parts(folder)) == []
    assert (folder / "speed-r1nb.json").stat().st_mtime_ns == made  # what was done is not done again
    return folder


def test_a_killed_bench_goes_on_where_it_was(killed, resumed):
    folder, kept = killed
    assert 3 <= len(kept) < PROBLEMS
    answers = answers_before(folder)
    assert len(answers) == PROBLEMS
    assert {number: answers[number] for number in kept} == kept
    assert list(answers)[: len(kept)] == list(kept)


def test_each_part_holds_what_it_measured(resumed):
    steps = read_json(resumed / "speed-r1nb.json", {})
    assert steps["completions"] == 8
    assert len(steps["each_step_seconds"]) == 3
    assert 0 < max(steps["each_step_tokens"]) <= 8 * 24
    assert steps["peak_gb"] > 0.1
    assert steps["plan_gb"] > 1
    assert "teach nothing" not in (resumed / "speed-r1nb.log").read_text()  # no work is skipped
    train = read_json(resumed / "accuracy-train.json", {})
    assert train["steps"] == 2
    assert 0 < train["minutes"] < 5  # as trained, and not as wished
    assert [line["step"] for line in train["history"] if "loss" in line] == [1, 2]
    assert train["trains_with"] == "trl.trainer.grpo_trainer"
    assert train["canary_checks"] == 1  # of batch 1, since batch 0 has a new adapter
    assert "Resuming after step 1 of 2" in (resumed / "accuracy-train.log").read_text()
    before, after = (read_json(resumed / f"accuracy-{moment}.json", {}) for moment in ("before", "after"))
    assert before["n"] == after["n"] == PROBLEMS
    assert before["p"] is None
    assert 0 < after["p"] <= 1


def test_a_part_that_takes_too_long_is_stopped_and_the_others_go_on(tmp_path, capsys):
    wrong = {"folder": str(tmp_path), "recipe": "no-such", "moment": "before", "changes": {}, "stop_after": 9}
    parts = {"imports": ("imports", {}), "accuracy-before": ("answer", wrong)}
    assert run_parts(tmp_path, {"imports": parts["imports"]}, limit=0.1) == ["imports"]
    assert "It was stopped after 0 seconds." in capsys.readouterr().out
    assert processes_on(tmp_path) == []
    write_json(tmp_path / "accuracy-before.json", {"more": "again", "with": {"recipe": "no-such-other"}})
    assert run_parts(tmp_path, parts) == ["accuracy-before"]  # what failed is tried again
    assert "vllm" in read_json(tmp_path / "imports.json", {})["cannot_import"]
    assert "Unknown recipe 'no-such-other'" in read_json(tmp_path / "accuracy-before.json", {})["failed"]


def test_the_rehearsals_bundle_names_no_folder_of_this_machine(resumed):
    with zipfile.ZipFile(pack(resumed, small_parts(resumed))) as file:
        texts = {name: file.read(name).decode() for name in file.namelist()}
    assert {
        "accuracy-after.json",
        "environment.json",
        "speed-r1nb.log",
        "weights-tiny-cpu.json",
    } <= texts.keys()
    for text in texts.values():
        assert str(resumed) not in text
        assert str(Path(sys.prefix)) not in text


def test_bundles_become_tables(resumed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_gpu_results, "RESULTS", tmp_path)
    (tmp_path / "README.md").write_text(f"# Results\n\n{make_gpu_results.NOT_YET}\n")
    with pytest.raises(UserError, match="is a rehearsal without a GPU"):
        make_gpu_results.main(str(pack(resumed, small_parts(resumed))))
    assert list(tmp_path.glob("*.csv")) == []
    environment = read_json(resumed / "environment.json", {})
    for card in ("NVIDIA L4", "Tesla T4", "Tesla T4"):
        write_json(resumed / "environment.json", environment | {"gpu": card})
        make_gpu_results.main(str(pack(resumed, small_parts(resumed))))
    write_json(resumed / "environment.json", environment)
    tables = {}
    for name in ("cards", "steps", "accuracy"):
        with (tmp_path / f"gpu-{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    assert [row["gpu"] for row in tables["cards"]] == ["NVIDIA L4", "Tesla T4"]
    assert [row["part"] for row in tables["steps"]] == ["speed-r1nb"] * 2
    assert float(tables["steps"][0]["tokens_per_second"]) > 0
    assert [row["n"] for row in tables["accuracy"]][:3] == [str(PROBLEMS), "", str(PROBLEMS)]
    page = (tmp_path / "README.md").read_text()
    assert make_gpu_results.NOT_YET not in page
    assert "[gpu-steps.csv](gpu-steps.csv)" in page
    with pytest.raises(UserError, match="holds no results of make gpu-bench"):
        make_gpu_results.main(str(tmp_path / "README.md"))


def test_the_results_page_says_whether_a_gpu_has_run_it():
    page = (make_gpu_results.RESULTS / "README.md").read_text()
    files = [path.name for path in make_gpu_results.RESULTS.glob("gpu-*.csv")]
    assert (make_gpu_results.NOT_YET in page) == (not files)
    assert all(f"({file})" in page for file in files)


def test_without_bitsandbytes_recipes_with_16_bits_are_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_bench, "find_spec", lambda name: None)
    parts = choose_parts(tmp_path, machine_with("l4"), {})
    assert {given["recipe"] for _, given in parts.values() if "recipe" in given} == {"llama32-1b-16gb"}
    assert "bitsandbytes is missing" in capsys.readouterr().out


def test_a_small_card_is_refused_and_a_cpu_rehearses(tmp_path, capsys):
    with pytest.raises(UserError, match="nothing to measure here: the smallest GPU recipe is made for 16 GB"):
        choose_parts(tmp_path, Machine(2, 13, "NVIDIA GeForce RTX 3060", 12.6), {})
    parts = choose_parts(tmp_path, Machine(2, 13), {"dataset": "bundled"})
    assert {part for part in parts if "memory" in part} == {"memory-tiny-cpu"}
    assert parts["download"][1]["changes"]["dataset"] == "bundled"
    assert "This is a rehearsal with the tiny policy: without a GPU" in capsys.readouterr().out


def test_a_folder_with_another_set_up_is_refused(tmp_path, monkeypatch):
    l4, facts = machine_with("l4"), {"versions": {"trl": "1.0"}}
    monkeypatch.setattr(gpu_bench, "environment", lambda: facts)
    begin(tmp_path, l4, {})
    kept = (tmp_path / "environment.json").read_text()
    begin(tmp_path, l4, {})
    with pytest.raises(UserError, match=r"another set-up \(GPU: NVIDIA L4, now none\): delete it, or"):
        begin(tmp_path, Machine(2, 13), {})
    with pytest.raises(UserError, match=r"another set-up \(dataset: none, now mine\): "):
        begin(tmp_path, l4, {"dataset": "mine"})
    facts["versions"] = {"trl": "1.1"}
    with pytest.raises(UserError, match=r"another set-up \(trl: 1.0, now 1.1\): "):
        begin(tmp_path, l4, {})
    assert (tmp_path / "environment.json").read_text() == kept


def test_only_the_model_and_its_data_can_be_set(monkeypatch):
    monkeypatch.setenv("R1NB_SET", "model_name=m data.dataset=d")
    assert gpu_bench.settings() == {"model_name": "m", "data.dataset": "d"}
    assert "R1NB_SET" not in os.environ  # what the other parts measure stays as it is
    monkeypatch.setenv("R1NB_SET", "max_steps=5")
    with pytest.raises(UserError, match="R1NB_SET sets max_steps, and the bench takes only model_name, "):
        gpu_bench.settings()
