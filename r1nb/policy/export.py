"""A trained policy as a model that needs no PEFT: merged weights, or GGUF for llama.cpp and Ollama."""

import copy
import tempfile
from pathlib import Path

from r1nb.errors import UserError, first_line


def save_merged(policy, folder: Path | str) -> Path:
    """Save the base model with the adapter merged into it: a plain model that does not need PEFT.

    Unsloth writes 16-bit weights; for a 4-bit base model it merges into the original weights. Without
    Unsloth the dtype is that of the base model, and a 4-bit base model is dequantized first, so that the
    adapter is added to the weights that it was trained on.
    """
    folder = _empty(folder)
    export = getattr(policy.model, "save_pretrained_merged", None)  # the base's method drops the adapter
    if policy.model_settings.engine == "unsloth" and getattr(export, "__self__", None) is policy.model:
        return _by_unsloth(export, policy, folder, save_method="merged_16bit")
    merged = copy.deepcopy(policy.model)
    in_4bit = getattr(policy.model, "is_loaded_in_4bit", False)
    if in_4bit:
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as adapter:
            policy.model.save_pretrained(adapter)
            merged = PeftModel.from_pretrained(merged.unload().dequantize(), adapter)
    # save_original_format would turn weights loaded in 4 bits back to 4 bits, but they are dequantized now.
    merged.merge_and_unload().save_pretrained(str(folder), save_original_format=not in_4bit)
    policy.tokenizer.save_pretrained(str(folder))
    return folder


def save_gguf(policy, folder: Path | str, quantization_method: str = "q4_k_m") -> Path:
    """Save the base model with the adapter merged into it as GGUF, for llama.cpp and Ollama.

    Unsloth downloads and builds llama.cpp for this, which needs a network, cmake and some minutes.
    """
    if policy.model_settings.engine != "unsloth":
        raise UserError("Unsloth writes GGUF but is not loaded: use save_merged, then llama.cpp's converter.")
    folder, written = _empty(folder), _empty(f"{folder}_gguf")  # where Unsloth writes
    _by_unsloth(policy.model.save_pretrained_gguf, policy, folder, quantization_method=quantization_method)
    return written


def _empty(folder: Path | str) -> Path:
    """The folder as a Path; raises UserError if it holds files, since an export never overwrites."""
    folder = Path(folder).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder.name} holds files already: export into a folder that does not exist yet.")
    return folder


def _by_unsloth(export, policy, folder: Path, **options) -> Path:
    """Export with Unsloth; its errors, and those of the tools that it calls, become one sentence."""
    try:
        export(str(folder), policy.tokenizer, **options)
    except (RuntimeError, NotImplementedError, OSError, ValueError) as error:
        raise UserError(f"{folder.name} could not be written: {first_line(error)}") from None
    return folder
