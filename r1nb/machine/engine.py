"""Import Unsloth before the libraries that it patches, and replace Unsloth or vLLM if one is missing.

Unsloth replaces functions of the libraries in PATCHED, so it must be imported before them. Without a CUDA
GPU, neither Unsloth nor vLLM is imported.
"""

import glob
import importlib
import importlib.util
import os
import sys

from r1nb.errors import UserError, first_line, say_once
from r1nb.processes import processes

PATCHED = ("trl", "transformers", "peft")
AMPERE = (8, 0)  # from this compute capability on, cards compute in bfloat16
BITSANDBYTES = ("adamw_8bit", "bnb", "paged", "lion", "ademamix")  # parts of the names of its optimizers
NO_VLLM = {"fast_inference": False, "gpu_memory_utilization": None, "unsloth_vllm_standby": False}
_FAILED: dict[str, str] = {}  # why a package could not be imported when it was tried


def compute_dtype(model) -> str:
    """The model's dtype: the recipe's, or else bfloat16 from compute capability 8.0 (Ampere) on.

    Older cards (T4) support only float16. A CPU computes in bfloat16 if it has instructions for it (AMX or
    AVX512-BF16), else in float32.
    """
    if model.dtype:
        return model.dtype
    import torch

    if not torch.cuda.is_available():
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if fast else "float32"
    return "bfloat16" if torch.cuda.get_device_capability() >= AMPERE else "float16"


def use_one_gpu() -> None:
    """Hide all GPUs but the first from a process that trains alone, unless CUDA_VISIBLE_DEVICES is set.

    Otherwise transformers would spread each batch over all of them. Call it before torch looks for a GPU.
    """
    cards = glob.glob("/dev/nvidia[0-9]*")
    if len(cards) > 1 and processes() == 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        print(f"This machine has {len(cards)} GPUs, and r1nb uses the first (CUDA_VISIBLE_DEVICES=0).")


def prepare_unsloth(model) -> None:
    """Import Unsloth if `model` asks for it, there is a CUDA GPU, and no PATCHED library is imported yet."""
    if model.engine != "unsloth":
        return
    import torch

    if torch.cuda.is_available() and "unsloth" not in sys.modules and not _too_early():
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # no telemetry
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if model.unsloth_vllm_standby:
            os.environ["UNSLOTH_VLLM_STANDBY"] = "1"  # Unsloth reads it when it is imported
        why_missing("unsloth")


def require_unsloth(model) -> None:
    """Raise UserError if a library of PATCHED came before Unsloth, or Unsloth has another standby setting."""
    missing = "unsloth" not in sys.modules and "unsloth" not in _FAILED
    if missing and importlib.util.find_spec("unsloth") and (early := _too_early()):
        why = f"{early[0]} was imported before Unsloth, which has to come first to patch it"
        raise UserError(f"{why}: restart the kernel and run the notebook from the top.")
    ours, imported_with = model.unsloth_vllm_standby, os.environ.get("UNSLOTH_VLLM_STANDBY", "0")
    if "unsloth" in sys.modules and model.fast_inference and ours != (imported_with == "1"):
        theirs = f"UNSLOTH_VLLM_STANDBY={imported_with}"
        why = f"unsloth_vllm_standby = {ours}, but Unsloth was imported with {theirs}"
        raise UserError(f"{why}: restart the kernel and load this recipe first.")


def fall_back(recipe, say=print):
    """The recipe, changed to run with what is installed here; says what is replaced and what that costs."""
    if recipe.model.engine == "unsloth" and (reason := why_missing("unsloth")):
        bitsandbytes = importlib.util.find_spec("bitsandbytes") is not None
        if recipe.model.load_in_4bit and (not bitsandbytes or compute_dtype(recipe.model) == "float16"):
            raise UserError(
                f"Unsloth cannot be imported ({reason}), and without it load_in_4bit = True needs "
                "bitsandbytes and a card with bfloat16: run `make gpu`, or take recipe llama32-1b-16gb."
            )
        say(
            f"Unsloth cannot be imported ({reason}): plain TRL, PEFT and transformers train the same adapter "
            "instead. That costs memory (logits are not split, activations stay on the card) and time "
            "(no vLLM, no fused kernels); the plan includes it. `make gpu` installs Unsloth."
        )
        plain = without_vllm(recipe, engine="transformers", max_lora_rank=None)
        for section in (plain.grpo, plain.sft):
            if needs_bitsandbytes(section) and not bitsandbytes:
                section["optim"] = "adamw_torch"
        return plain
    no_4bit = recipe.model.load_in_4bit and importlib.util.find_spec("vllm_bnb_plugin") is None
    plugin = "4-bit weights need its plugin: pip install vllm-bnb-plugin" if no_4bit else ""
    if recipe.model.fast_inference and (reason := why_missing("vllm") or plugin):
        say(
            f"vLLM cannot be used ({reason}): Unsloth samples without it, which makes a step several times "
            "as long; `make gpu` installs vLLM."
        )
        return without_vllm(recipe)
    return recipe


def without_standby(recipe, machine):
    """The recipe, without vLLM's standby if the card is older than Ampere; says so once.

    Without standby vLLM keeps its cache while the policy trains, so that it gets at most half of the card.
    """
    standby = recipe.model.fast_inference and recipe.model.unsloth_vllm_standby
    if not standby or (machine.capability or AMPERE) >= AMPERE:
        return recipe
    say_once(
        f"unsloth_vllm_standby is switched off: on cards before Ampere, like {machine.gpu}, it fails at "
        "times. vLLM gets half of the card instead."
    )
    share = min(recipe.model.gpu_memory_utilization, 0.5)
    model = recipe.model.model_copy(update={"unsloth_vllm_standby": False, "gpu_memory_utilization": share})
    grpo = recipe.grpo | {"vllm_enable_sleep_mode": False}
    return recipe.model_copy(update={"model": model, "grpo": grpo})


def needs_bitsandbytes(section: dict) -> bool:
    """Whether a section `grpo` or `sft` names an optimizer of bitsandbytes."""
    return any(part in str(section.get("optim")) for part in BITSANDBYTES)


def without_vllm(recipe, **changes):
    """The recipe without vLLM, and with other values in its section `model`."""
    changes |= NO_VLLM
    grpo = {key: value for key, value in recipe.grpo.items() if not key.startswith("vllm_")}
    changed = {"model": recipe.model.model_copy(update=changes), "grpo": grpo | {"use_vllm": False}}
    return recipe.model_copy(update=changed | {"sft": dict(recipe.sft)})


def why_missing(name: str) -> str | None:
    """Why a package cannot be imported, in a few words; None if it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken build may raise anything
        _FAILED[name] = first_line(error)
    return _FAILED.get(name)


def _too_early() -> list[str]:
    return [name for name in PATCHED if name in sys.modules]
