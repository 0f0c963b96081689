"""Which engine runs, in which order things are imported, and what replaces what is missing."""

import subprocess
import sys
import types

import pytest
import torch

from r1nb.errors import UserError
from r1nb.machine.configs import grpo_config
from r1nb.machine.engine import compute_dtype, fall_back, require_unsloth
from r1nb.machine.hardware import (
    LADDER,
    Machine,
    choose_recipe,
    next_larger,
    require,
    smaller_recipe,
    suggest_recipe,
)
from r1nb.policy.loading import load_policy
from r1nb.recipes.recipe import load_recipe, recipe_names

CARD = Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4)
# Stands for Unsloth: notes what was imported before it, and with which setting.
UNSLOTH = """
import os, sys
EARLY = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
STANDBY = os.environ.get("UNSLOTH_VLLM_STANDBY")
"""


@pytest.fixture(autouse=True)
def nothing_tried_yet(monkeypatch):
    monkeypatch.setattr("r1nb.machine.engine._FAULTS", {})


@pytest.fixture
def unsloth(monkeypatch):
    """As if Unsloth had been imported in time."""
    monkeypatch.setitem(sys.modules, "unsloth", types.ModuleType("unsloth"))
    monkeypatch.setenv("UNSLOTH_VLLM_STANDBY", "1")


def run(code: str, folder) -> str:
    (folder / "unsloth").mkdir()
    (folder / "unsloth" / "__init__.py").write_text(UNSLOTH)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


# As if there were a GPU; TRL's own check of the recipe would ask it for more than that.
ON_A_GPU = (
    "import torch; torch.cuda.is_available = lambda: True; "
    "import r1nb.recipes.recipe; r1nb.recipes.recipe.check_recipe = lambda recipe: None; "
)


@pytest.mark.parametrize(("name", "standby"), [("llama31-8b-40gb", "1"), ("llama31-8b-seed", "None")])
def test_on_a_gpu_unsloth_comes_before_what_it_patches(tmp_path, name, standby):
    code = f"{ON_A_GPU} from r1nb.recipes.recipe import load_recipe; load_recipe({name!r}); "
    assert f"[] {standby}" in run(code + "import unsloth; print(unsloth.EARLY, unsloth.STANDBY)", tmp_path)


def test_another_engine_can_be_forced_and_then_unsloth_stays_out(tmp_path):
    code = (
        f"{ON_A_GPU} from r1nb.recipes.recipe import load_recipe; "
        "load_recipe('llama31-8b-seed', engine='transformers'); "
    )
    assert run(code + "print('unsloth' in sys.modules)", tmp_path).strip() == "False"


def test_without_a_gpu_nothing_of_it_is_imported(tmp_path):
    code = "from r1nb.recipes.recipe import load_recipe; load_recipe('llama31-8b-40gb'); "
    said = run(code + "print([m for m in ('unsloth', 'vllm', 'bitsandbytes') if m in sys.modules])", tmp_path)
    assert said.strip() == "[]"


@pytest.mark.parametrize("early", ["trl", "transformers", "peft"])
def test_what_comes_too_late_is_said_in_one_sentence(tmp_path, early):
    code = (
        f"import {early}; from r1nb.recipes.settings import ModelSettings; from r1nb.errors import UserError\n"
        "from r1nb.machine.engine import require_unsloth\n"
        "try: require_unsloth(ModelSettings('a-model', 'unsloth', 1024))\n"
        "except UserError as error: print(error)"
    )
    said = run(code, tmp_path)
    assert "was imported before Unsloth, which has to come first" in said
    assert "Traceback" not in said


def test_standby_cannot_change_once_unsloth_is_imported(unsloth, monkeypatch):
    require_unsloth(load_recipe("llama31-8b-40gb").model)
    with pytest.raises(UserError, match="unsloth_vllm_standby = False, but Unsloth was imported with"):
        require_unsloth(load_recipe("llama31-8b-seed").model)


def test_without_unsloth_plain_trl_takes_over_and_says_what_that_costs(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    said = []
    recipe = fall_back(load_recipe("llama32-1b-16gb"), said.append)
    assert (recipe.model.engine, recipe.model.fast_inference) == ("transformers", False)
    config = grpo_config(recipe, "unused")  # which TRL accepts
    assert (config.use_vllm, config.gradient_checkpointing) == (False, True)
    assert "Unsloth cannot be imported (import of unsloth halted" in said[0]
    assert "That costs memory" in said[0]


def test_a_broken_build_is_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "unsloth").mkdir()
    (tmp_path / "unsloth" / "__init__.py").write_text("raise RuntimeError('undefined symbol: x\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    said = []
    fall_back(load_recipe("llama32-1b-16gb"), said.append)
    assert "Unsloth cannot be imported (undefined symbol: x):" in said[0]


@pytest.mark.parametrize("build", ["raise ImportError('no kernel image')", None])
def test_a_machine_without_a_working_unsloth_still_gets_its_recipe(tmp_path, build):
    if build:
        (tmp_path / "site" / "unsloth").mkdir(parents=True)
        (tmp_path / "site" / "unsloth" / "__init__.py").write_text(build)
    site = str(tmp_path / "site")
    code = (
        f"{ON_A_GPU} sys.path.remove({str(tmp_path)!r}); sys.path.insert(0, {site!r}); "
        "from r1nb import hardware; card = hardware.Machine(2, 13, 'Tesla T4', 15.8); "
        "hardware.this_machine = lambda: card; print(hardware.choose_recipe().model.engine)"
    )
    said = run(code, tmp_path)
    reason = "no kernel image" if build else "No module named 'unsloth'"
    assert "Recipe llama32-1b-16gb: " in said
    assert "A card of 24GB would allow model_name unsloth/Llama-3.1-8B" in said
    assert f"Unsloth cannot be imported ({reason})" in said
    assert said.strip().endswith("transformers")


def test_4_bit_weights_on_a_card_without_bfloat16_need_unsloth(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setattr("r1nb.machine.engine.compute_dtype", lambda settings: "float16")
    with pytest.raises(UserError, match="without bfloat16 only Unsloth trains on 4-bit weights"):
        fall_back(load_recipe("llama31-8b-16gb"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # bitsandbytes, and its optimizer
    assert fall_back(load_recipe("llama32-1b-16gb")).grpo["optim"] == "adamw_torch"


def test_a_card_that_pytorch_cannot_use_is_not_called_missing(monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/nvidia0")
    assert "wants driver 580 or newer" in suggest_recipe(Machine(2, 13))[1]


def test_4_bit_weights_need_one_of_two_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="nor bitsandbytes is to be had, and llama31-8b-40gb needs one"):
        fall_back(load_recipe("llama31-8b-40gb"))


def test_without_vllm_unsloth_samples_itself(unsloth, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    said = []
    recipe = fall_back(load_recipe("llama31-8b-40gb"), said.append)
    assert (recipe.model.engine, recipe.model.fast_inference) == ("unsloth", False)
    assert not recipe.model.unsloth_vllm_standby
    assert recipe.grpo["use_vllm"] is False
    assert said[0].startswith("vLLM cannot be used (import of vllm halted")
    require(recipe, CARD)  # standby no longer matters


def test_vllm_without_its_plugin_cannot_read_4_bit(unsloth, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = []
    assert fall_back(load_recipe("llama31-8b-40gb"), said.append).model.fast_inference is False
    assert "pip install vllm-bnb-plugin" in said[0]
    assert fall_back(load_recipe("llama32-1b-16gb"), said.append).model.fast_inference is True


@pytest.mark.parametrize(
    ("capability", "dtype", "bf16"),
    [(None, "float32", False), ((7, 5), "float16", False), ((8, 0), "bfloat16", True)],
)
def test_the_dtype_follows_the_card(monkeypatch, capability, dtype, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    recipe = load_recipe("tiny-cpu", dtype=None)
    recipe.grpo = {key: value for key, value in recipe.grpo.items() if key != "bf16"}
    assert compute_dtype(recipe.model) == dtype
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # TRL asks too, and there is none
    recipe.model.dtype = dtype
    config = grpo_config(recipe, "unused")
    assert (config.bf16, config.fp16) == (bf16, dtype == "float16")


@pytest.mark.parametrize(
    ("setting", "package"), [({"use_vllm": True}, "vllm"), ({"optim": "adamw_8bit"}, "bits")]
)
def test_what_a_setting_needs_is_asked_for_before_any_download(monkeypatch, tiny_recipe, setting, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tiny_recipe.grpo.update(setting)
    with pytest.raises(UserError, match=f"{package}.* is not installed, and use_vllm or optim"):
        require(tiny_recipe, Machine(2, 13))


@pytest.mark.parametrize("name", [*LADDER, "llama31-8b-seed"])
def test_every_gpu_recipe_is_refused_without_a_gpu_before_any_download(name):
    with pytest.raises(UserError, match=f"Recipe {name} needs a CUDA GPU and this machine has none"):
        choose_recipe(name)
    load_recipe(name).grpo_config("unused")  # TRL accepts it


@pytest.mark.parametrize(
    ("gpu", "memory", "name"),
    [
        (None, 0.0, "tiny-cpu"),
        ("NVIDIA GeForce RTX 3060", 12.6, "tiny-cpu"),
        ("Tesla T4", 15.8, "llama32-1b-16gb"),
        ("NVIDIA L4", 23.6, "llama31-8b-24gb"),
        ("NVIDIA GeForce RTX 4090", 25.4, "llama31-8b-24gb"),
        ("Tesla V100-SXM2-32GB", 34.1, "llama31-8b-24gb"),
        ("NVIDIA A100-SXM4-40GB", 42.4, "llama31-8b-40gb"),
        ("NVIDIA H100 80GB HBM3", 85.0, "llama31-8b-80gb"),
        ("NVIDIA H200", 150.0, "llama31-8b-141gb"),
    ],
)
def test_auto_takes_the_recipe_for_the_card_and_says_why(gpu, memory, name):
    machine = Machine(8, 64, gpu, memory)
    suggested, reason = suggest_recipe(machine)
    assert suggested == name
    assert name in recipe_names()
    assert gpu is None or gpu in reason
    assert (next_larger(machine) is None) == (gpu is None or memory > 145)


def test_what_the_next_card_would_allow_and_what_the_next_smaller_recipe_is():
    larger = next_larger(CARD)
    assert larger.startswith("A card of 80GB would allow max_completion_length 2048 instead of 1024")
    names = list(LADDER)
    assert [smaller_recipe(name) for name in names] == [None, *names[:-1]]
    assert smaller_recipe("tiny-cpu") is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("You are trying to access a gated repo. 401 Client Error"), "is gated: accept its licence"),
        (OSError("is not a valid model identifier"), "neither a local folder nor to be had"),
        (RuntimeError("FlashInfer needs compute capability 8.0\nmore"), r"vLLM could not start \(FlashInfer"),
        (ValueError("No available memory for the cache blocks."), "take recipe 'llama31-8b-24gb'"),
        (torch.OutOfMemoryError("CUDA out of memory."), "take recipe 'llama31-8b-24gb'"),
    ],
)
def test_what_unsloth_raises_on_loading_becomes_one_sentence(unsloth, error, words):
    def from_pretrained(*args, **kwargs):
        raise error

    sys.modules["unsloth"].FastLanguageModel = types.SimpleNamespace(from_pretrained=from_pretrained)
    with pytest.raises(UserError, match=words):
        load_policy(load_recipe("llama31-8b-40gb"), say=lambda line: None)


def test_unsloth_is_told_all_that_the_recipe_says(unsloth):
    told, said = {}, []

    def from_pretrained(name, **kwargs):
        told.update(kwargs, name=name)
        raise OSError("enough")

    sys.modules["unsloth"].FastLanguageModel = types.SimpleNamespace(from_pretrained=from_pretrained)
    recipe = load_recipe("llama31-8b-40gb", dtype="bfloat16")
    with pytest.raises(UserError):
        load_policy(recipe, said.append)
    for key in (
        "max_seq_length",
        "load_in_4bit",
        "fast_inference",
        "max_lora_rank",
        "gpu_memory_utilization",
    ):
        assert told[key] == getattr(recipe.model, key)
    assert told["name"] == recipe.model.model_name
    assert told["dtype"] == torch.bfloat16
    assert told["use_exact_model_name"] is True
    assert f"max_lora_rank={recipe.model.max_lora_rank}" in said[0]
