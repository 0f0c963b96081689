"""Which engine runs, in which order packages are imported, and what replaces a missing package."""

import subprocess
import sys
import types

import pytest
import torch

from r1nb.errors import UserError
from r1nb.machine.configs import grpo_config
from r1nb.machine.engine import compute_dtype, fall_back, require_unsloth
from r1nb.machine.hardware import Machine, require
from r1nb.policy.loading import load_policy
from r1nb.recipes.loading import load_recipe

CARD = Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4)
# A stand-in for Unsloth: it records what was imported before it, and the setting of standby.
UNSLOTH = """
import os, sys
EARLY = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
STANDBY = os.environ.get("UNSLOTH_VLLM_STANDBY")
"""


@pytest.fixture(autouse=True)
def nothing_tried_yet(monkeypatch):
    monkeypatch.setattr("r1nb.machine.engine._FAILED", {})


@pytest.fixture
def unsloth(monkeypatch):
    """Pretend that Unsloth was imported first."""
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


# Pretend that there is a GPU. TRL's check of the recipe is skipped, since it would use the GPU.
ON_A_GPU = (
    "import torch; torch.cuda.is_available = lambda: True; from r1nb.machine import fitting, plan; "
    "fitting.this_machine = plan.this_machine = lambda: fitting.Machine(2, 13, 'Tesla T4', 15.8); "
    "fitting.check_configs = lambda recipe: None; "
)
PLAN = "from r1nb.machine.plan import plan_run; from r1nb.recipes.loading import load_recipe"
PLAIN = "engine='transformers', fast_inference=False, use_vllm=False, optim='adamw_torch'"


@pytest.mark.parametrize(("name", "standby"), [("llama31-8b-40gb", "1"), ("llama31-8b-seed", "None")])
def test_on_a_gpu_unsloth_is_imported_before_the_libraries_that_it_patches(tmp_path, name, standby):
    code = f"{ON_A_GPU} fitting.choose_recipe({name!r}); "
    assert f"[] {standby}" in run(code + "import unsloth; print(unsloth.EARLY, unsloth.STANDBY)", tmp_path)


def test_after_a_plan_unsloth_can_still_be_imported_first(tmp_path):
    code = f"{ON_A_GPU} {PLAN}\ntry: plan_run(load_recipe('llama31-8b-40gb', model_name='/no/model'))\n"
    code += "except ValueError: import unsloth; print(unsloth.EARLY, unsloth.STANDBY)"
    assert "[] 1" in run(code, tmp_path)


def test_with_engine_transformers_unsloth_is_not_imported(tmp_path):
    code = f"{ON_A_GPU} fitting.choose_recipe('llama31-8b-seed', {PLAIN}); "
    assert run(code + "print('unsloth' in sys.modules)", tmp_path).strip().endswith("False")


def test_without_a_gpu_no_gpu_library_is_imported(tmp_path):
    code = "from r1nb.recipes.loading import load_recipe; from r1nb.machine.engine import prepare_unsloth; "
    code += "prepare_unsloth(load_recipe('llama31-8b-40gb').model); "
    said = run(code + "print([m for m in ('unsloth', 'vllm', 'bitsandbytes') if m in sys.modules])", tmp_path)
    assert said.strip() == "[]"


@pytest.mark.parametrize("early", ["trl", "transformers", "peft"])
def test_unsloth_imported_too_late_is_reported_in_one_sentence(tmp_path, early):
    code = (
        f"import {early}; from r1nb.recipes.settings import ModelSettings\n"
        "from r1nb.errors import UserError\n"
        "from r1nb.machine.engine import require_unsloth\n"
        "settings = ModelSettings(model_name='a-model', engine='unsloth', max_seq_length=1024)\n"
        "try: require_unsloth(settings)\n"
        "except UserError as error: print(error)"
    )
    said = run(code, tmp_path)
    assert "was imported before Unsloth, which has to come first" in said
    assert "Traceback" not in said


def test_standby_cannot_change_after_unsloth_is_imported(unsloth, monkeypatch):
    require_unsloth(load_recipe("llama31-8b-40gb").model)
    with pytest.raises(UserError, match="unsloth_vllm_standby = False, but Unsloth was imported with"):
        require_unsloth(load_recipe("llama31-8b-seed").model)


def test_without_unsloth_plain_trl_is_used_and_its_cost_is_printed(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    said = []
    recipe = fall_back(load_recipe("llama32-1b-16gb"), said.append)
    assert (recipe.model.engine, recipe.model.fast_inference) == ("transformers", False)
    config = grpo_config(recipe, "unused")  # TRL accepts it
    assert (config.use_vllm, config.gradient_checkpointing) == (False, True)
    assert "Unsloth cannot be imported (import of unsloth halted" in said[0]
    assert "That costs memory" in said[0]


def test_a_broken_unsloth_is_treated_like_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "unsloth").mkdir()
    (tmp_path / "unsloth" / "__init__.py").write_text("raise RuntimeError('undefined symbol: x\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    said = []
    fall_back(load_recipe("llama32-1b-16gb"), said.append)
    assert "Unsloth cannot be imported (undefined symbol: x):" in said[0]


def test_4_bit_weights_on_a_card_without_bfloat16_need_unsloth(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setattr("r1nb.machine.engine.compute_dtype", lambda model: "float16")
    with pytest.raises(
        UserError, match="without it load_in_4bit = True needs bitsandbytes and a card with bf"
    ):
        fall_back(load_recipe("llama31-8b-16gb"))


def test_without_bitsandbytes_no_section_keeps_an_optimizer_that_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = load_recipe("llama31-8b-r1", load_in_4bit=False, optim="lion_32bit")
    assert recipe.sft["optim"] == "paged_adamw_8bit"
    plain = fall_back(recipe)
    assert (plain.grpo["optim"], plain.sft["optim"]) == ("adamw_torch", "adamw_torch")
    assert recipe.sft["optim"] == "paged_adamw_8bit"  # the recipe itself is unchanged
    kept = load_recipe("llama31-8b-r1", load_in_4bit=False, optim="adafactor", **{"sft.optim": "sgd"})
    plain = fall_back(kept)
    assert (plain.grpo["optim"], plain.sft["optim"]) == ("adafactor", "sgd")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert fall_back(recipe).sft["optim"] == "paged_adamw_8bit"


def test_4_bit_weights_need_unsloth_or_bitsandbytes(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="without it load_in_4bit = True needs bitsandbytes and"):
        fall_back(load_recipe("llama31-8b-40gb"))


def test_without_vllm_unsloth_generates_the_completions(unsloth, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    said = []
    recipe = fall_back(load_recipe("llama31-8b-40gb"), said.append)
    assert (recipe.model.engine, recipe.model.fast_inference) == ("unsloth", False)
    assert not recipe.model.unsloth_vllm_standby
    assert recipe.grpo["use_vllm"] is False
    assert said[0].startswith("vLLM cannot be used (import of vllm halted")
    require(recipe, CARD)  # standby no longer matters


def test_vllm_without_its_plugin_cannot_read_4_bit_weights(unsloth, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = []
    assert fall_back(load_recipe("llama31-8b-40gb"), said.append).model.fast_inference is False
    assert "pip install vllm-bnb-plugin" in said[0]
    assert fall_back(load_recipe("llama32-1b-16gb"), said.append).model.fast_inference is True


@pytest.mark.parametrize(
    ("capability", "dtype", "bf16"),
    [
        (None, "float32", False),
        ("AVX512-BF16", "bfloat16", True),
        ((7, 5), "float16", False),
        ((8, 0), "bfloat16", True),
    ],
)
def test_the_dtype_depends_on_the_card_or_the_processor(monkeypatch, capability, dtype, bf16):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    has_bf16 = capability == "AVX512-BF16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    capability = capability if isinstance(capability, tuple) else None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    recipe = load_recipe("tiny-cpu", dtype=None)
    recipe.grpo = {key: value for key, value in recipe.grpo.items() if key != "bf16"}
    assert compute_dtype(recipe.model) == dtype
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # TRL asks too: there is no GPU
    recipe.model.dtype = dtype
    config = grpo_config(recipe, "unused")
    assert (config.bf16, config.fp16) == (bf16, dtype == "float16")


class TritonError(Exception):
    """Like Triton's own, which is no RuntimeError."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("You are trying to access a gated repo. 401 Client Error"), "is gated: accept its licence"),
        (OSError("is not a valid model identifier"), "neither a local folder nor available"),
        (RuntimeError("FlashInfer needs compute capability 8.0\nmore"), r"vLLM could not start \(FlashInfer"),
        (TritonError("out of resource: shared memory"), r"vLLM could not start \(out of resource: shared"),
        (ValueError("No available memory for the cache blocks."), "take recipe 'llama31-8b-24gb'"),
        (torch.OutOfMemoryError("CUDA out of memory."), "take recipe 'llama31-8b-24gb'"),
    ],
)
def test_an_error_of_unsloth_on_loading_becomes_one_sentence(unsloth, error, words):
    def from_pretrained(*args, **kwargs):
        raise error

    sys.modules["unsloth"].FastLanguageModel = types.SimpleNamespace(from_pretrained=from_pretrained)
    with pytest.raises(UserError, match=words):
        load_policy(load_recipe("llama31-8b-40gb"))


def test_unsloth_gets_all_model_settings_of_the_recipe(unsloth):
    told = {}

    def from_pretrained(name, **kwargs):
        told.update(kwargs, name=name)
        raise OSError("enough")

    sys.modules["unsloth"].FastLanguageModel = types.SimpleNamespace(from_pretrained=from_pretrained)
    recipe = load_recipe("llama31-8b-40gb", dtype="bfloat16")
    with pytest.raises(UserError):
        load_policy(recipe)
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
