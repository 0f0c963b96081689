"""Memory: what weights, adapter, optimizer, KV cache, activations and logits take, one formula each.

L layers, h hidden size, f size of the MLP, k key-value heads of d, V entries of the vocabulary; S tokens of
prompt and completion, T = per_device_train_batch_size x S; `width` is the bytes of a number. `config` is the
transformers config of a model that answers in text.
"""

import os
import warnings

from r1nb.errors import UserError, first_line
from r1nb.processes import processes

NF4_BITS = 4.127  # a weight in 4 bits, its share of the scales doubly quantised (2305.14314, section 3)


def empty_model(config, lora=None):
    """The model of a transformers config, with the adapter of a recipe's section `lora`, on the meta device.

    A tensor on the meta device has a shape but no numbers, and takes no memory. Raises UserError for a model
    that is no causal language model, and if the adapter's target_modules match none of its modules.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = config.get_text_config()
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        try:
            model = AutoModelForCausalLM.from_config(config)
            if lora:
                model = get_peft_model(model, LoraConfig(r=lora.r, target_modules=lora.target_modules))
        except ValueError as error:
            raise UserError(f"No plan for a {config.model_type} model: {first_line(error)}") from None
    return model


def weight_bytes(model, load_in_4bit: bool, width: int) -> float:
    """The base model: `width` bytes a weight; in 4 bits those of its matrices take 4.127 bits each.

    bitsandbytes leaves embeddings, head, norms and biases as they are.
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
    """The adapter and its gradient, `number` bytes a parameter each, and two moments in 8 or 32 bits.

    An adapter has r x (inputs + outputs) parameters for each matrix (arXiv 2106.09685, section 4.1); moments
    in 8 bits: arXiv 2110.02861.
    """
    return model.num_parameters(only_trainable=True) * (2 * number + (2 if "8bit" in optim else 8))


def full_bytes(parameters: float, width: int, optim: str, reference: bool) -> dict[str, float]:
    """What full fine-tuning keeps in one process: {part: bytes}, the weights anew.

    Without DeepSpeed a gradient and AdamW's two moments in the weights' own precision. Under ZeRO
    (arXiv 1910.02054, section 3.1) a 16-bit weight and gradient, and a copy of the weight and the moments in
    32 bits; ZeRO-3 divides all of it by the processes. With a KL term the `reference` model's weights too.
    """
    zero3 = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    moments = 2 if "8bit" in optim else (8 if zero3 else 2 * width)
    copy = 4 if zero3 and width == 2 else 0
    parts = {"weights": width, "their gradient": width, "optimizer": moments + copy}
    if reference:
        parts["reference model"] = width
    return {name: parameters * size / (processes() if zero3 else 1) for name, size in parts.items()}


def kv_bytes(config, width: int) -> int:
    """2 L k d numbers a token: a key and a value in each layer (arXiv 2305.13245, section 2)."""
    return 2 * config.num_hidden_layers * kv_size(config) * width


def kv_size(config) -> int:
    """k d: the heads that keep a key and a value, times their size; 0 for a model without attention."""
    heads = getattr(config, "num_attention_heads", 0)
    size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    if config.model_type == "falcon":  # its num_kv_heads is not what its cache holds
        return size if config.multi_query and not config.new_decoder_architecture else heads * size
    return (getattr(config, "num_key_value_heads", None) or heads) * size


def mlp_size(config) -> int:
    """f, by any of the names that configs have for it; without one, as in GPT-2, it is 4 h."""
    names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    return next((size for name in names if (size := getattr(config, name, None))), 4 * config.hidden_size)


def activation_bytes(config, tokens: int, rank: int, width: int) -> tuple[float, float, float]:
    """(a layer's input, what a layer keeps for its backward pass, gradients that flow through it).

    T h numbers; T x 24 h bytes and T (4 f + 2 k d + 7 r) numbers; T 2 f numbers, and in 16 bits T x 16 h
    bytes, since the norms compute in 32. Counted tensor by tensor, as
    arXiv 2205.05198, section 4.1, does, for RMSNorm in 32 bits, SwiGLU, grouped queries, adapters and
    attention that keeps no scores; a test counts them again.
    """
    hidden, mlp = config.hidden_size, mlp_size(config)
    numbers = 4 * mlp + 2 * kv_size(config) + 7 * rank
    gradients = 2 * mlp * width + (16 * hidden if width == 2 else 0)
    return tokens * hidden * width, tokens * (24 * hidden + numbers * width), tokens * gradients


def logit_bytes(config, tokens: int) -> float:
    """TRL: logits, log-probabilities and their gradient, each (completion tokens of a pass, V).

    In 32 bits: Accelerate converts the model's output to that, whatever the model computes in.
    """
    return 3 * tokens * config.vocab_size * 4


def unsloth_logit_bytes(config, length: int) -> float:
    """Unsloth: 16 bytes for each logit of a chunk of S / 4 tokens, or of 4,096, the least that it needs.

    Where memory is free it takes more at a time (unsloth_zoo, autotune_batch_and_chunks).
    """
    return length / max(4, length // 4096) * config.vocab_size * 16


def graph_bytes(config) -> float:
    """172 graphs of 4 h L bytes, at least 0.15 and at most 1 GiB (unsloth_zoo's own estimate)."""
    return min(max(172 * 4 * config.hidden_size * config.num_hidden_layers, 0.15 * 2**30), 2**30)
