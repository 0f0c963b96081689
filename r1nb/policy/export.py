"""A trained policy as a model that needs no PEFT: merged weights, or GGUF for llama.cpp and Ollama."""

import copy
import tempfile
from contextlib import contextmanager
from pathlib import Path

from r1nb.errors import UserError, first_line
from r1nb.policy.adapters import strip
from r1nb.text.prompts import REASONING, format_prompt


def save_merged(policy, folder: Path | str) -> Path:
    """Save the base model with the adapter merged into it: a plain model that does not need PEFT.

    Unsloth writes 16-bit weights; for a 4-bit base model it merges into the original weights. Without
    Unsloth the dtype is that of the base model, and a 4-bit base model is dequantized first, so that the
    adapter is added to the weights that it was trained on. The saved model is then loaded again, and its
    logits are compared with the policy's. Raises UserError, and leaves no folder, if anything fails.
    """
    folder = _empty(folder)
    if not policy.has_adapter:
        raise UserError("This policy has no adapter to merge: its weights are a plain model already.")
    export = getattr(policy.model, "save_pretrained_merged", None)  # the base's method drops the adapter
    with _in_words(folder), _moved_when_whole(folder) as part:
        if policy.model_settings.engine == "unsloth" and getattr(export, "__self__", None) is policy.model:
            _refuse_tied(policy.model)
            export(str(part), policy.tokenizer, save_method="merged_16bit")
        else:
            _save_plain(policy, part)
            _compare_logits(policy, part)
    return folder


def save_gguf(policy, folder: Path | str, quantization_method: str = "q4_k_m") -> Path:
    """Save the base model with the adapter merged into it as GGUF, for llama.cpp and Ollama.

    Unsloth downloads and builds llama.cpp for this, which needs a network, cmake and some minutes.
    """
    if policy.model_settings.engine != "unsloth":
        raise UserError("Unsloth writes GGUF but is not loaded: use save_merged, then llama.cpp's converter.")
    folder, written = _empty(folder), _empty(f"{folder}_gguf")  # where Unsloth writes
    _refuse_tied(policy.model)
    with _in_words(folder):
        policy.model.save_pretrained_gguf(
            str(folder), policy.tokenizer, quantization_method=quantization_method
        )
    return written


def _empty(folder: Path | str) -> Path:
    """The folder as a Path; raises UserError if it holds files, since an export never overwrites."""
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder.name} holds files already: export into a folder that does not exist yet.")
    return folder


@contextmanager
def _in_words(folder: Path):
    """Turn the errors of PEFT, of Unsloth and of the tools that it calls into one sentence."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, NotImplementedError, OSError, ValueError) as error:
        raise UserError(f"{folder.name} could not be written: {first_line(error)}") from None


@contextmanager
def _moved_when_whole(folder: Path):
    """A place beside `folder` to write to; it becomes `folder` if nothing fails, and else disappears."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        part = Path(place, folder.name)
        yield part
        if folder.exists():
            folder.rmdir()
        part.replace(folder)


def _save_plain(policy, folder: Path) -> None:
    """Merge a copy of the policy with PEFT, and save it with its tokenizer."""
    merged = copy.deepcopy(policy.model)
    in_4bit = getattr(policy.model, "is_loaded_in_4bit", False)
    if in_4bit:
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as adapter:
            policy.model.save_pretrained(adapter)
            merged = PeftModel.from_pretrained(strip(merged).dequantize(), adapter)
    if _tied_under_adapter(merged):
        # Otherwise merging into one of them changes both. PEFT writes into the config that they now differ.
        from torch.nn import Parameter

        head = merged.get_output_embeddings()
        head = getattr(head, "base_layer", head)
        head.weight = Parameter(head.weight.detach().clone())
    # save_original_format would turn weights loaded in 4 bits back to 4 bits, but they are dequantized now.
    merged.merge_and_unload().save_pretrained(str(folder), save_original_format=not in_4bit)
    policy.tokenizer.save_pretrained(str(folder))


def _tied_under_adapter(model) -> bool:
    """Whether the embedding and lm_head share their weights, and LoRA changes what one of them computes."""
    from peft.tuners.lora import LoraLayer

    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return any(isinstance(layer, LoraLayer) for layer in layers) and layers[0].weight is layers[1].weight


def _refuse_tied(model) -> None:
    if _tied_under_adapter(model):
        raise UserError(
            "The adapter changes lm_head or the embedding, which share their weights in this model, so that "
            "Unsloth would merge it wrongly: load it with engine='transformers' and use save_merged."
        )


def _compare_logits(policy, folder: Path) -> None:
    """Raise UserError if the saved model has other logits than the policy on a prompt, rounding aside."""
    import torch
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(policy.model.device).eval()
    text = format_prompt(policy.tokenizer, REASONING.build_messages("How much is 1 + 2?"))
    ids = policy.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids.to(merged.device)
    training = policy.model.training
    policy.model.eval()
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids).logits.float() for model in (policy.model, merged))
    policy.model.train(training)
    far = float((theirs - ours).norm() / ours.norm())
    # In 4 bits the weights are unpacked in another way than by the kernel that multiplies with them.
    least = 0.01 if getattr(policy.model, "is_loaded_in_4bit", False) else 0.0
    if not far <= max(least, torch.finfo(merged.dtype).eps ** 0.5):  # also if it is NaN
        raise UserError(
            f"{folder.name} is not written: after merging, the logits differ by {far:.1%} from the policy's, "
            "so the model would answer differently; use the adapter as it is."
        )
