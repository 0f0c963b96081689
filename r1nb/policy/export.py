"""A trained policy as a model that needs no PEFT: merged weights, or GGUF for llama.cpp and Ollama."""

import copy
import tempfile
from pathlib import Path

from r1nb.errors import UserError, first_line


def save_merged(policy, folder: Path | str) -> Path:
    """Save the base with the adapter's weights added: a plain model, no PEFT needed.

    Unsloth writes it in 16 bits, on a 4-bit base's original weights. Without Unsloth it has the base's
    dtype, and a 4-bit base is unpacked first, so that the adapter meets what it was trained on.
    """
    folder = _empty(folder)
    export = getattr(policy.model, "save_pretrained_merged", None)  # the base's own would lose the adapter
    if policy.model_settings.engine == "unsloth" and getattr(export, "__self__", None) is policy.model:
        return _by_unsloth(export, policy, folder, save_method="merged_16bit")
    merged = copy.deepcopy(policy.model)
    in_4bit = getattr(policy.model, "is_loaded_in_4bit", False)
    if in_4bit:
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as adapter:
            policy.model.save_pretrained(adapter)
            merged = PeftModel.from_pretrained(merged.unload().dequantize(), adapter)
    # A checkpoint that came in 4 bits would be turned back into that form, which its weights have left.
    merged.merge_and_unload().save_pretrained(str(folder), save_original_format=not in_4bit)
    policy.tokenizer.save_pretrained(str(folder))
    return folder


def save_gguf(policy, folder: Path | str, quantization_method: str = "q4_k_m") -> Path:
    """Save the base with the adapter's weights added as GGUF, for llama.cpp and Ollama.

    Unsloth fetches and builds llama.cpp for it, which takes a network, cmake and some minutes.
    """
    if policy.model_settings.engine != "unsloth":
        raise UserError("Unsloth writes GGUF and is not loaded: use save_merged, then llama.cpp's converter.")
    folder, written = _empty(folder), _empty(f"{folder}_gguf")  # where Unsloth puts it
    _by_unsloth(policy.model.save_pretrained_gguf, policy, folder, quantization_method=quantization_method)
    return written


def _empty(folder: Path | str) -> Path:
    """The folder, which must not hold anything yet: an export never overwrites."""
    folder = Path(folder).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder.name} holds files already: export into a folder that does not exist yet.")
    return folder


def _by_unsloth(export, policy, folder: Path, **options) -> Path:
    """Export by Unsloth; its refusals, and those of the tools that it calls, become one sentence."""
    try:
        export(str(folder), policy.tokenizer, **options)
    except (RuntimeError, NotImplementedError, OSError, ValueError) as error:
        raise UserError(f"{folder.name} could not be written: {first_line(error)}") from None
    return folder
