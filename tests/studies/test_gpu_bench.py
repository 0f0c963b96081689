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
from r1nb.machine import known_models
from r1nb.machine.cards import CARDS, machine_with
from r1nb.machine.configs import check_configs
from r1nb.machine.hardware import LADDER, Machine
from r1nb.paths import read_json, write_json
from r1nb.recipes.loading import load_recipe
from r1nb.studies import gpu_bench, gpu_parts
from r1nb.studies.gpu_bench import choose_parts, list_parts, pack, run_parts
from r1nb.studies.gpu_parts import FIXED, WAYS, random_model

SMALL = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 24}
PROBLEMS = 16


def small_parts(folder: Path) -> dict:
    """Return the parts of a rehearsal, smaller: batches of one answer, and one training step in a process."""
    parts = list_parts(folder, [], "tiny-cpu", SMALL, problems=PROBLEMS, minutes=5)
    for name, changes in {
        "accuracy-before": {},
        "accuracy-train": {"max_steps": 2, **SMALL},
        "accuracy-after": {},
    }.items():
        parts[name][1]["changes"] |= {"eval_batch_size": 1, "torch_threads": 1} | changes
    parts["accuracy-train"][1]["stop_after"] = 0
    del parts["speed-trl"], parts["speed-unsloth"]
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
    assert [line["step"] for line in train["history"] if "loss" in line] == [1, 2]
    assert "Resuming after step 1 of 2" in (resumed / "accuracy-train.log").read_text()
    before, after = (read_json(resumed / f"accuracy-{moment}.json", {}) for moment in ("before", "after"))
    assert before["n"] == after["n"] == PROBLEMS
    assert before["p"] is None
    assert 0 < after["p"] <= 1


def test_a_part_that_takes_too_long_is_stopped_and_the_others_go_on(tmp_path, capsys):
    wrong = {"folder": str(tmp_path), "recipe": "no-such", "way": "trl", "changes": {}, "count": 2}
    parts = {"environment": ("environment", {"folder": str(tmp_path)}), "speed-trl": ("steps", wrong)}
    assert run_parts(tmp_path, {"environment": parts["environment"]}, limit=0.1) == ["environment"]
    assert "It was stopped after 0 seconds." in capsys.readouterr().out
    assert processes_on(tmp_path) == []
    assert run_parts(tmp_path, parts) == ["speed-trl"]  # what failed is tried again
    assert read_json(tmp_path / "environment.json", {})["versions"]["torch"]
    assert "Unknown recipe 'no-such'" in read_json(tmp_path / "speed-trl.json", {})["failed"]


def test_a_bundle_holds_no_secrets_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q7" * 17)
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-box-7.corp.example")
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/data/people/mal lory"))
    planted = [
        "hf_" + "q7" * 17, "hf_" + "abcDEF123" * 4, "correct horse battery", "sk-proj-abcdefghijklmnop1234",
        "lab-box-7", "corp.example", "mallory", "mal lory", "/data/people", "/opt/secret-project",
        "C:\\Users\\eve", "pass:word", "172.17.0.9", str(tmp_path),
        "GPU-1a2b3c4d-0000-1111-2222-333344445555",
    ]  # fmt: skip
    lines = [
        "token hf_" + "q7" * 17, "another hf_" + "abcDEF123" * 4, "key=correct horse battery",
        "OPENAI sk-proj-abcdefghijklmnop1234", "on lab-box-7.corp.example as mallory, also lab-box-7",
        'File "/data/people/mal lory/x/train.py", line 3', "see file:///opt/secret-project/a/b.txt",
        "--path=/opt/secret-project/run,/opt/secret-project/log", "C:\\Users\\eve\\models\\llama",
        "git https://pass:word@github.com/x/y", "tcp://172.17.0.9:41231", f"folder {tmp_path}/models/x",
        "GPU-1a2b3c4d-0000-1111-2222-333344445555",
    ]  # fmt: skip
    useful = [
        "openai/gsm8k", "cudnn 9.1.0.70", "</answer>", "\\frac{1}{2} \\times 3", "40 km/h", "train.py",
        "b.txt", "https://huggingface.co/unsloth/Llama-3.2-1B-Instruct", "skip_special_tokens",
        "3 / 4 = 0.75",
    ]  # fmt: skip
    write_json(tmp_path / "speed-r1nb.json", {"failed": lines, "said": {"mallory": useful}})
    (tmp_path / "speed-r1nb.log").write_text("\n".join([*lines, *useful]))
    with zipfile.ZipFile(pack(tmp_path)) as file:
        assert sorted(file.namelist()) == ["speed-r1nb.json", "speed-r1nb.log"]
        part, log = json.loads(file.read("speed-r1nb.json")), file.read("speed-r1nb.log").decode()
    for text in (log, "\n".join(part["failed"])):
        assert [word for word in planted if word in text] == []
    assert part["said"] == {"mallory": useful}  # keys are ours
    assert [word for word in useful if word not in log] == []


def test_the_rehearsals_bundle_names_no_folder_of_this_machine(resumed):
    with zipfile.ZipFile(pack(resumed)) as file:
        texts = {name: file.read(name).decode() for name in file.namelist()}
    assert {
        "accuracy-after.json",
        "environment.json",
        "speed-r1nb.log",
    } <= texts.keys()
    for text in texts.values():
        assert str(resumed) not in text
        assert str(Path(sys.prefix)) not in text


def test_bundles_become_tables(resumed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_gpu_results, "RESULTS", tmp_path)
    (tmp_path / "README.md").write_text(f"# Results\n\n{make_gpu_results.NOT_YET}\n")
    with pytest.raises(UserError, match="is a rehearsal without a GPU"):
        make_gpu_results.main(str(pack(resumed)))
    assert list(tmp_path.glob("*.csv")) == []
    environment = read_json(resumed / "environment.json", {})
    for card in ("NVIDIA L4", "Tesla T4", "Tesla T4"):
        write_json(resumed / "environment.json", environment | {"gpu": card})
        make_gpu_results.main(str(pack(resumed)))
    write_json(resumed / "environment.json", environment)
    tables = {}
    for name in ("cards", "steps", "accuracy"):
        with (tmp_path / f"gpu-{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    assert [row["gpu"] for row in tables["cards"]] == ["NVIDIA L4", "Tesla T4"]
    assert [row["part"] for row in tables["steps"]] == ["speed-r1nb"] * 2
    assert float(tables["steps"][0]["tokens_per_second"]) > 0
    assert [row["n"] for row in tables["accuracy"]][:3] == [str(PROBLEMS), str(PROBLEMS), ""]
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


@pytest.mark.parametrize("card", CARDS)
def test_each_card_gets_its_presets_and_settings_that_are_valid(tmp_path, card):
    machine = machine_with(card)
    parts = choose_parts(tmp_path, machine)
    presets = [name.removeprefix("memory-") for name in parts if name.startswith("memory-")]
    assert presets == [name for name, least in LADDER.items() if least <= machine.gpu_memory_gb]
    for name, (function, arguments) in parts.items():
        if function != "environment":
            assert arguments["recipe"] in LADDER
            fixed = WAYS[arguments["way"]] | FIXED if function == "steps" else {}
            check_configs(load_recipe(arguments["recipe"], **arguments["changes"] | fixed))
            assert (arguments["changes"].get("max_completion_length") == 768) == name.startswith("speed")
    assert parts["accuracy-after"][1]["changes"]["test_problems"] == 1319


def test_a_small_card_is_refused_and_a_cpu_rehearses(tmp_path, capsys):
    with pytest.raises(UserError, match="nothing to measure here: the smallest GPU recipe is made for 16 GB"):
        choose_parts(tmp_path, Machine(2, 13, "NVIDIA GeForce RTX 3060", 12.6))
    assert {part for part in choose_parts(tmp_path, Machine(2, 13)) if "memory" in part} == {
        "memory-tiny-cpu"
    }
    assert "This is a rehearsal with the tiny policy: without a GPU" in capsys.readouterr().out


@pytest.mark.parametrize("tied", [True, False])
def test_a_random_model_has_the_shape_and_a_tokenizer_of_its_size(tmp_path, monkeypatch, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape = ("llama", 64, 96, 3, 4, 2, 16, 1000, tied)
    monkeypatch.setitem(known_models.SHAPES, "a-model", shape)
    path = tmp_path / "models" / "a-model"
    random_model("unsloth/a-model", path)
    model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert [getattr(model.config, key) for key in known_models.COLUMNS] == list(shape)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert len(tokenizer) == 1000
    assert tokenizer.decode([999]) != ""
    ids = tokenizer("3 + 4", return_tensors="pt").input_ids
    assert model.generate(input_ids=ids, max_new_tokens=3, do_sample=False).shape == (1, ids.shape[1] + 3)
    written = (path / "config.json").stat().st_mtime_ns
    random_model("unsloth/a-model", path)
    assert (path / "config.json").stat().st_mtime_ns == written


def test_the_notebooks_settings_are_not_measured_without_unsloth(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "choose", lambda recipe, changes: (load_recipe("tiny-cpu"), []))
    with pytest.raises(UserError, match="Unsloth is missing"):
        gpu_parts.steps(str(tmp_path), "llama32-1b-16gb", "unsloth", {}, 3)


@pytest.mark.parametrize("function", ["steps", "answer", "train"])
def test_unsloth_is_imported_before_what_it_patches(tmp_path, function):
    name = {"steps": "speed-r1nb", "answer": "accuracy-before", "train": "accuracy-train"}[function]
    arguments = list_parts(tmp_path, [], "llama32-1b-16gb", SMALL, 4, 1)[name][1]
    code = (
        "import json, sys; from r1nb.machine import fitting; from r1nb.studies import gpu_parts\n"
        "def choose(*names, **changes):\n"
        "    sys.exit(str([name for name in engine.PATCHED if name in sys.modules]))\n"
        "from r1nb.machine import engine; fitting.choose_recipe = choose\n"
        f"gpu_parts.{function}(**json.loads(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "[]"


def test_a_folder_that_another_card_began_is_refused(tmp_path, monkeypatch):
    write_json(tmp_path / "environment.json", {"gpu": "Tesla T4"})
    monkeypatch.setattr(gpu_bench, "this_machine", lambda: Machine(2, 13, "NVIDIA L4", 23.6))
    with pytest.raises(UserError, match="was begun on Tesla T4, and this is NVIDIA L4"):
        gpu_bench.main(str(tmp_path))
