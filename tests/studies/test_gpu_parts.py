"""The parts of the GPU bench: their settings fit each card, their weights, and what a part refuses."""

import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from statistics import median

import pytest
from transformers import AutoTokenizer, TrainerControl

from r1nb.errors import UserError
from r1nb.machine import known_models
from r1nb.machine.cards import CARDS, machine_with
from r1nb.machine.configs import check_configs
from r1nb.machine.hardware import LADDER
from r1nb.machine.known_models import known_as
from r1nb.machine.plan import estimate, load_empty
from r1nb.paths import DATA, write_json
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.studies import gpu_bench, gpu_parts, random_model
from r1nb.studies.gpu_bench import LIMIT, choose_parts, list_parts
from r1nb.studies.gpu_meters import step_clock
from r1nb.studies.gpu_parts import FIXED, WAYS, WITHOUT_VLLM
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import format_prompt
from r1nb.training import canary


@pytest.fixture(scope="module")
def empty_models():
    recipes = [load_recipe(name) for name in ("llama32-1b-16gb", "llama31-8b-40gb")]
    return {known_as(recipe.model.model_name): load_empty(recipe) for recipe in recipes}


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
            empty = empty_models[known_as(recipe.model.model_name)]
            plan = estimate(recipe, machine, empty)
            assert plan.fits
            slow = load_recipe(arguments["recipe"], **fixed | arguments["changes"] | WITHOUT_VLLM)
            check_configs(slow)
            assert estimate(slow, machine, empty).fits
            assert plan.step_seconds[1] * arguments.get("count", 1) < LIMIT / 2
            assert (recipe.grpo["max_completion_length"] == 256) == name.startswith("speed")
    assert parts["accuracy-after"][1]["changes"]["test_problems"] == 1319


def test_the_plan_has_room_for_the_longest_prompt():
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")  # that of random_model, too
    prompts = load_rows("bundled", "train").select(range(200))["prompt"]
    lengths = [len(tokenizer(format_prompt(tokenizer, prompt)).input_ids) for prompt in prompts]
    assert max(lengths) == FIXED["max_prompt_length"]


def test_the_steps_hold_no_check_of_the_canary_and_end_in_time(tmp_path, monkeypatch):
    def compare(*given):
        raise AssertionError("The canary checks.")

    monkeypatch.setattr(canary, "compare", compare)
    small = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 4}
    small |= {"gradient_accumulation_steps": 1}
    result = gpu_parts.steps(str(tmp_path), "tiny-cpu", "r1nb", small, 3, 1e9)
    assert len(result["each_step_seconds"]) == len(result["each_step_tokens"]) == 3
    assert result["step_seconds"] == median(result["each_step_seconds"][1:])
    clock, control = step_clock(time.monotonic()), TrainerControl()
    clock.on_step_begin(None, None, control)
    assert not control.should_training_stop
    clock.on_step_end(None, None, control)
    assert control.should_training_stop


@pytest.mark.parametrize("tied", [True, False])
def test_a_random_model_has_the_shape_and_a_tokenizer_of_its_size(tmp_path, monkeypatch, tied):
    from transformers import AutoModelForCausalLM

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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # as if the disk became full
    try:
        with pytest.raises(UserError, match=r"The disk of .* is full \(.*File too large"):
            random_model.random_model("unsloth/a-model", tmp_path / "models" / "a-model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "models").glob("a-model")) == []


def test_the_notebooks_settings_are_not_measured_without_unsloth(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "choose", lambda recipe, changes: (load_recipe("tiny-cpu"), []))
    with pytest.raises(UserError, match="Unsloth is missing"):
        gpu_parts.steps(str(tmp_path), "llama32-1b-16gb", "unsloth", {}, 3, 9)


def test_unsloth_is_imported_before_what_it_patches(tmp_path):
    parts = list_parts(tmp_path, [], "llama32-1b-16gb", {}, {}, 1)
    chosen = [part for part in parts.values() if part[0] in ("steps", "download", "answer", "train")]
    code = (
        "import json, sys; from r1nb.machine import engine, fitting; from r1nb.studies import gpu_parts\n"
        "def choose(*names, **changes):\n"
        "    raise RuntimeError([name for name in engine.PATCHED if name in sys.modules])\n"
        "fitting.choose_recipe = choose\n"
        "for function, given in json.loads(sys.argv[1]):\n"
        "    print(function, gpu_parts.attempt(getattr(gpu_parts, function), given)['failed'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(chosen)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"{function} RuntimeError: []" for function, _ in chosen]
    assert len(chosen) == 7


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
    assert again == {"changes": {"r": 8, **WITHOUT_VLLM}, "no_vllm": "vLLM could not start (no kernel)"}
    failed = gpu_parts.attempt(steps, first["with"] | {"changes": {"r": 16, **WITHOUT_VLLM}})
    assert failed == {"failed": "vLLM could not start at all."}
