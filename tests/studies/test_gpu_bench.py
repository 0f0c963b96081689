"""The GPU bench, rehearsed on a CPU: parts that fail, are killed and go on; its bundle; its tables."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import make_gpu_results
import psutil
import pytest

from r1nb.errors import UserError
from r1nb.machine import known_models
from r1nb.machine.cards import CARDS, machine_with
from r1nb.machine.configs import check_configs
from r1nb.machine.hardware import LADDER, Machine
from r1nb.machine.plan import estimate, load_empty
from r1nb.paths import DATA, read_json, write_json
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.studies import gpu_bench, gpu_parts, random_model
from r1nb.studies.gpu_bench import LIMIT, begin, choose_parts, list_parts, run_parts
from r1nb.studies.gpu_bundle import pack
from r1nb.studies.gpu_parts import FIXED, NO_VLLM, WAYS
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import format_prompt

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


def test_a_bundle_holds_no_secrets_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q7" * 17)
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-box-7.corp.example")
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/data/people/mal lory"))
    jwt, key = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJz.c2ln", "0123456789abcdef" * 2 + "01234567"
    planted = [
        "hf_" + "q7" * 17, "hf_" + "abcDEF123" * 4, "correct horse battery", "sk-proj-abcdefghijklmnop1234",
        "lab-box-7", "corp.example", "mallory", "mal lory", "/data/people", "/opt/secret-project",
        "C:\\Users\\eve", "pass:word", "172.17.0.9", str(tmp_path),
        "GPU-1a2b3c4d-0000-1111-2222-333344445555",
        jwt, key, "10.1.2.3", "fe80::1ff:fe23", "2001:db8:0:0:1:2:3:4", "02:42:ac:11:00:02", "my own work",
    ]  # fmt: skip
    lines = [
        "token hf_" + "q7" * 17, "another hf_" + "abcDEF123" * 4, "key=correct horse battery",
        "OPENAI sk-proj-abcdefghijklmnop1234", "on lab-box-7.corp.example as mallory, also lab-box-7",
        'File "/data/people/mal lory/x/train.py", line 3', "see file:///opt/secret-project/a/b.txt",
        "--path=/opt/secret-project/run,/opt/secret-project/log", "C:\\Users\\eve\\models\\llama",
        "git https://pass:word@github.com/x/y", "tcp://172.17.0.9:41231", f"folder {tmp_path}/models/x",
        "GPU-1a2b3c4d-0000-1111-2222-333344445555",
        f"Bearer {jwt}, WANDB {key}", "at 10.1.2.3.", "host fe80::1ff:fe23 and 2001:db8:0:0:1:2:3:4",
        "ether 02:42:ac:11:00:02", 'File "/data/my own work/x/train.py"',
    ]  # fmt: skip
    useful = [
        "openai/gsm8k", "cudnn 9.1.0.70", "nvidia-cublas==12.4.5.8", "3 /4 + 5/6", "12:34:56", "c10::Error",
        "torch.ops.x[1::2]",
        "</answer>", "\\frac{1}{2} \\times 3", "40 km/h", "train.py",
        "b.txt", "https://huggingface.co/unsloth/Llama-3.2-1B-Instruct", "skip_special_tokens",
        "3 / 4 = 0.75",
    ]  # fmt: skip
    write_json(tmp_path / "speed-r1nb.json", {"failed": lines, "said": {"mallory": useful}})
    (tmp_path / "speed-r1nb.log").write_text("\n".join([*lines, *useful]))
    with zipfile.ZipFile(pack(tmp_path, small_parts(tmp_path))) as file:
        assert sorted(file.namelist()) == ["speed-r1nb.json", "speed-r1nb.log"]
        part, log = json.loads(file.read("speed-r1nb.json")), file.read("speed-r1nb.log").decode()
    for text in (log, "\n".join(part["failed"])):
        assert [word for word in planted if word in text] == []
    assert part["said"] == {"mallory": useful}  # keys are ours
    assert [word for word in useful if word not in log] == []


def test_a_bundle_keeps_the_words_of_the_results_and_leaves_out_other_files(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "unsloth")
    monkeypatch.setenv("DB_PASSWORD", "bitsandbytes")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/root"))
    monkeypatch.setattr("socket.gethostname", lambda: "llama31")
    result = {"recipe": "llama31-8b-16gb", "way": "unsloth", "model": "unsloth/x", "optim": "bitsandbytes"}
    write_json(tmp_path / "speed-r1nb.json", result)
    write_json(tmp_path / "kaggle.json", {"key": "x"})
    (tmp_path / "mine.log").write_text("mine")
    (tmp_path / "accuracy-train.json").write_text('{"steps": 1')
    with zipfile.ZipFile(pack(tmp_path, small_parts(tmp_path))) as file:
        assert json.loads(file.read("speed-r1nb.json")) == result
        assert "failed" in json.loads(file.read("accuracy-train.json"))
        assert sorted(file.namelist()) == ["accuracy-train.json", "speed-r1nb.json"]


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


@pytest.fixture(scope="module")
def empty_models():
    return {name: load_empty(load_recipe(name)) for name in LADDER}


@pytest.mark.parametrize("card", CARDS)
def test_each_card_gets_valid_settings_and_steps_that_fit_into_the_time(
    tmp_path, monkeypatch, empty_models, card
):
    monkeypatch.setattr(gpu_bench, "find_spec", lambda name: name)
    machine = machine_with(card)
    parts = choose_parts(tmp_path, machine, {})
    presets = [name.removeprefix("memory-") for name in parts if name.startswith("memory-")]
    assert presets == [name for name, least in LADDER.items() if least <= machine.gpu_memory_gb]
    for name, (function, arguments) in parts.items():
        if function in ("steps", "train"):
            fixed = WAYS[arguments["way"]] | FIXED if function == "steps" else {}
            recipe = load_recipe(arguments["recipe"], **fixed | arguments["changes"])
            check_configs(recipe)
            check_configs(load_recipe(arguments["recipe"], **fixed | arguments["changes"] | NO_VLLM))
            plan = estimate(recipe, machine, empty_models[recipe.name])
            assert plan.fits
            assert plan.step_seconds[1] * arguments.get("count", 1) < LIMIT / 2
            assert (recipe.grpo["max_completion_length"] == 256) == name.startswith("speed")
    assert parts["accuracy-after"][1]["changes"]["test_problems"] == 1319


def test_without_bitsandbytes_recipes_with_16_bits_are_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_bench, "find_spec", lambda name: None)
    parts = choose_parts(tmp_path, machine_with("l4"), {})
    assert {given["recipe"] for _, given in parts.values() if "recipe" in given} == {"llama32-1b-16gb"}
    assert "bitsandbytes is missing" in capsys.readouterr().out


def test_the_plan_has_room_for_the_longest_prompt():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")  # that of random_model, too
    prompts = load_rows("bundled", "train").select(range(200))["prompt"]
    lengths = [len(tokenizer(format_prompt(tokenizer, prompt)).input_ids) for prompt in prompts]
    assert max(lengths) == FIXED["max_prompt_length"]


def test_a_small_card_is_refused_and_a_cpu_rehearses(tmp_path, capsys):
    with pytest.raises(UserError, match="nothing to measure here: the smallest GPU recipe is made for 16 GB"):
        choose_parts(tmp_path, Machine(2, 13, "NVIDIA GeForce RTX 3060", 12.6), {})
    parts = choose_parts(tmp_path, Machine(2, 13), {"dataset": "bundled"})
    assert {part for part in parts if "memory" in part} == {"memory-tiny-cpu"}
    assert parts["download"][1]["changes"]["dataset"] == "bundled"
    assert "This is a rehearsal with the tiny policy: without a GPU" in capsys.readouterr().out


@pytest.mark.parametrize("tied", [True, False])
def test_a_random_model_has_the_shape_and_a_tokenizer_of_its_size(tmp_path, monkeypatch, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape = ("llama", 64, 96, 3, 4, 2, 16, 1000, tied)
    monkeypatch.setitem(known_models.SHAPES, "a-model", shape)
    path = tmp_path / "models" / "a-model"
    with monkeypatch.context() as patch:  # killed after the first file
        patch.setattr(random_model, "write_json", lambda *given: sys.exit())
        with pytest.raises(SystemExit):
            random_model.random_model("unsloth/a-model", path)
    files = sorted(path.glob("*.safetensors"))
    files.pop().unlink()
    written = {file: file.stat().st_mtime_ns for file in files}
    random_model.random_model("unsloth/a-model", path)
    assert {file: file.stat().st_mtime_ns for file in files} == written  # it goes on, and does not begin anew
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
    random_model.random_model("unsloth/a-model", path)
    assert (path / "config.json").stat().st_mtime_ns == written


def test_a_disk_that_is_too_small_is_named_and_not_filled(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10**9))
    with pytest.raises(UserError, match=r"Random weights take 2.5 GB and .* has 1.0 GB free: free some"):
        random_model.random_model("unsloth/Llama-3.2-1B-Instruct", tmp_path / "models" / "x")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    monkeypatch.setitem(known_models.SHAPES, "a-model", ("llama", 64, 96, 3, 4, 2, 16, 1000, True))

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        random_model.random_model("unsloth/a-model", tmp_path / "models" / "a-model")
    assert list((tmp_path / "models").glob("a-model")) == []


def test_the_notebooks_settings_are_not_measured_without_unsloth(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "choose", lambda recipe, changes: (load_recipe("tiny-cpu"), []))
    with pytest.raises(UserError, match="Unsloth is missing"):
        gpu_parts.steps(str(tmp_path), "llama32-1b-16gb", "unsloth", {}, 3, 9)


@pytest.mark.parametrize("function", ["steps", "answer", "train"])
def test_unsloth_is_imported_before_what_it_patches(tmp_path, function):
    name = {"steps": "speed-r1nb", "answer": "accuracy-before", "train": "accuracy-train"}[function]
    arguments = list_parts(tmp_path, [], "llama32-1b-16gb", SMALL, {}, 1)[name][1]
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


def test_a_folder_with_another_set_up_is_refused(tmp_path, monkeypatch):
    l4, facts = machine_with("l4"), {"versions": {"trl": "1.0"}}
    monkeypatch.setattr(gpu_bench, "environment", lambda: facts)
    begin(tmp_path, l4, {})
    kept = (tmp_path / "environment.json").read_text()
    begin(tmp_path, l4, {})
    with pytest.raises(UserError, match=r"another set-up \(NVIDIA L4, now no GPU\): delete it, or name"):
        begin(tmp_path, Machine(2, 13), {})
    with pytest.raises(UserError, match=r"another set-up \(dataset None, now mine\): "):
        begin(tmp_path, l4, {"dataset": "mine"})
    facts["versions"] = {"trl": "1.1"}
    with pytest.raises(UserError, match=r"another set-up \(trl 1.0, now 1.1\): "):
        begin(tmp_path, l4, {})
    assert (tmp_path / "environment.json").read_text() == kept


def test_only_the_model_and_its_data_can_be_set(monkeypatch):
    monkeypatch.setenv("R1NB_SET", "model_name=m data.dataset=d")
    assert gpu_bench.settings() == {"model_name": "m", "data.dataset": "d"}
    assert "R1NB_SET" not in os.environ  # what the other parts measure stays as it is
    monkeypatch.setenv("R1NB_SET", "max_steps=5")
    with pytest.raises(UserError, match="R1NB_SET sets max_steps, and the bench takes only model_name, "):
        gpu_bench.settings()


def test_after_training_the_answers_before_it_must_be_there(tmp_path):
    questions = ["1 + 1?", "2 + 2?"]
    with pytest.raises(UserError, match="accuracy-before comes first"):
        gpu_parts.answered_before(str(tmp_path), "m", questions)
    grades = {"cut": False, "strict": True, "lenient": True, "format": True, "rewards": {}}
    answers = [Graded(question, "2", "2", (), **grades) for question in questions]
    write_json(tmp_path / "answers-before-x.json", {i: asdict(g) for i, g in enumerate(answers)})
    write_json(tmp_path / "accuracy-before.json", {"n": 2, "model": "m", "answers": "answers-before-x.json"})
    before = gpu_parts.answered_before(str(tmp_path), "m", questions)
    assert [g.question for g in before] == questions
    for model, asked in (("other", questions), ("m", ["3 + 3?", *questions[1:]])):
        with pytest.raises(UserError, match="accuracy-before comes first"):
            gpu_parts.answered_before(str(tmp_path), model, asked)


def test_a_part_is_done_without_vllm_if_vllm_does_not_start():
    def steps(changes):
        if "fast_inference" not in changes:
            raise UserError("vLLM could not start (no kernel): restart the kernel and set OVERRIDES.")
        if changes["r"] == 16:
            raise UserError("vLLM could not start at all.")
        return {"changes": changes}

    first = gpu_parts.attempt(steps, {"changes": {"r": 8}})
    assert first["more"] == "vLLM could not start (no kernel), so it is done without vLLM"
    again = gpu_parts.attempt(steps, {"changes": {"r": 8}} | first["with"])
    assert again == {"changes": {"r": 8, **NO_VLLM}, "no_vllm": "vLLM could not start (no kernel)"}
    failed = gpu_parts.attempt(steps, first["with"] | {"changes": {"r": 16, **NO_VLLM}})
    assert failed == {"failed": "vLLM could not start at all."}
