"""The memory of weights, adapter, optimizer, KV cache, activations and logits: one formula for each.

L: number of layers; h: hidden size; f: size of the MLP; k: number of key-value heads; d: size of a head;
V: size of the vocabulary; S: tokens of prompt and completion; T: per_device_train_batch_size x S. `width` is
the number of bytes of a number. `config` is the transformers config of a text model (of empty_model: of any).
"""

import os
import warnings

from r1nb.errors import UserError, first_line
from r1nb.processes import processes

_LAST = {}  # {arguments: the model} of the last call of empty_model: a plan asks for the same model again
NF4_BITS = 4.127  # bits of a weight with its share of the doubly quantised scales (2305.14314, section 3)


def empty_model(config, lora=None):
    """The model of a transformers config, with the adapter of a recipe's section `lora`, on the meta device.

    A tensor on the meta device has a shape but no numbers, and takes no memory. Raises UserError for a model
    that is not a causal language model, and if the adapter's target_modules match none of its modules.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    key = config.to_json_string(), lora and (lora.r, str(lora.target_modules))
    if key in _LAST:
        return _LAST[key]
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        try:
            model = AutoModelForCausalLM.from_config(config)
            if lora:
                model = get_peft_model(model, LoraConfig(r=lora.r, target_modules=lora.target_modules))
        except ValueError as error:
            raise UserError(f"No plan for a {config.model_type} model: {first_line(error)}") from None
    _LAST.clear()
    _LAST[key] = model
    return model


def weight_bytes(model, load_in_4bit: bool, width: int) -> float:
    """Bytes of the base model: `width` per weight; with load_in_4bit, 4.127 bits per weight of a matrix.

    bitsandbytes does not quantise embeddings, head, norms and biases.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    base = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" not in name)
    packed = 0
    if load_in_4bit:
        parts = [part for name, part in model.named_modules() if "lora_" not in name]
        matrices = [part.weight for part in parts if isinstance(part, Linear | Conv1D)]
        head = model.get_output_embeddings().weight
        packed = sum(matrix.numel() for matrix in matrices if matrix is not head)
    return packed * NF4_BITS / 8 + (base - packed) * width


def adapter_bytes(model, number: int, optim: str) -> int:
    """Bytes of adapter and gradient (`number` per parameter each) and of two moments in 8 or 32 bits.

    An adapter has r x (inputs + outputs) parameters for each matrix (arXiv 2106.09685, section 4.1); moments
    in 8 bits: arXiv 2110.02861.
    """
    return model.num_parameters(only_trainable=True) * (2 * number + (2 if "8bit" in optim else 8))


def full_bytes(parameters: float, width: int, optim: str, reference: bool) -> dict[str, float]:
    """{part: bytes} that full fine-tuning keeps in one process, including the weights.

    Without DeepSpeed, the gradient and AdamW's two moments have the precision of the weights. Under ZeRO
    (arXiv 1910.02054, section 3.1), weight and gradient have 16 bits; a copy of the weight and the moments
    have 32. ZeRO-3 divides everything by the number of processes. A KL term adds the `reference` model.
    """
    zero3 = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    moments = 2 if "8bit" in optim else (8 if zero3 else 2 * width)
    copy = 4 if zero3 and width == 2 else 0
    parts = {"weights": width, "their gradient": width, "optimizer": moments + copy}
    if reference:
        parts["reference model"] = width
    return {name: parameters * size / (processes() if zero3 else 1) for name, size in parts.items()}


def kv_bytes(config, width: int) -> int:
    """Bytes of the KV cache per token: 2 L k d numbers, keys and values (arXiv 2305.13245, section 2)."""
    return 2 * config.num_hidden_layers * kv_size(config) * width


def kv_size(config) -> int:
    """k d: the number of key-value heads times their size; 0 for a model without attention."""
    heads = getattr(config, "num_attention_heads", 0)
    size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    if config.model_type == "falcon":  # its cache does not hold num_kv_heads heads
        return size if config.multi_query and not config.new_decoder_architecture else heads * size
    return (getattr(config, "num_key_value_heads", None) or heads) * size


def mlp_size(config) -> int:
    """f, under any of its names in configs; 4 h if the config has none of them, as in GPT-2."""
    names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    return next((size for name in names if (size := getattr(config, name, None))), 4 * config.hidden_size)


def activation_bytes(config, tokens: int, rank: int, width: int) -> tuple[float, float, float]:
    """Bytes of (a layer's input, tensors kept for the layer's backward pass, gradients in the layer).

    Input: T h numbers. Kept: T x 24 h bytes and T (4 f + 2 k d + 7 r) numbers; r is the adapter's rank.
    Gradients: T 2 f numbers, and in 16 bits also T x 16 h bytes, because the norms compute in 32 bits.
    Counted tensor by tensor, as in arXiv 2205.05198, section 4.1, for RMSNorm in 32 bits, SwiGLU, grouped
    queries, adapters and attention that keeps no scores; a test compares the sums with a real count.
    """
    hidden, mlp = config.hidden_size, mlp_size(config)
    numbers = 4 * mlp + 2 * kv_size(config) + 7 * rank
    gradients = 2 * mlp * width + (16 * hidden if width == 2 else 0)
    return tokens * hidden * width, tokens * (24 * hidden + numbers * width), tokens * gradients


def logit_bytes(config, tokens: int) -> float:
    """Bytes of TRL's logits, log-probabilities and their gradient, each (completion tokens of a pass, V).

    They have 32 bits, because Accelerate converts the model's output from any dtype to float32.
    """
    return 3 * tokens * config.vocab_size * 4


def unsloth_logit_bytes(config, length: int) -> float:
    """The least bytes of Unsloth's logits: 16 for each logit of a chunk of S / 4 tokens, or of about 4,096.

    If memory is free, Unsloth computes larger chunks (unsloth_zoo, autotune_batch_and_chunks).
    """
    return length / max(4, length // 4096) * config.vocab_size * 16


def graph_bytes(config) -> float:
    """Bytes of vLLM's 172 CUDA graphs: 4 h L each, in all 0.15 to 1 GiB (unsloth_zoo's own estimate)."""
    return min(max(172 * 4 * config.hidden_size * config.num_hidden_layers, 0.15 * 2**30), 2**30)
