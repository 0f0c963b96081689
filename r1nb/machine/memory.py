"""Memory: what weights, adapter, optimizer, KV cache, activations and logits take, one formula each.

L layers, h hidden size, f size of the MLP, k key-value heads of d, V entries of the vocabulary; S tokens of
prompt and completion, T = per_device_train_batch_size x S; `width` is the bytes of a number. `config` is a
transformers config.
"""

import os

from r1nb.processes import processes

NF4_BITS = 4.127  # a weight in 4 bits, its share of the scales doubly quantised (2305.14314, section 3)


def weight_bytes(config, load_in_4bit: bool, width: int) -> float:
    """L x (attention + MLP) matrices in 4.127 bits or 16; embeddings, head and norms always in 16."""
    tied = getattr(config, "tie_word_embeddings", True)
    embeddings = config.vocab_size * config.hidden_size * (1 if tied else 2)
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    linear = config.num_hidden_layers * sum(i * o for i, o in linear_shapes(config).values())
    return linear * (NF4_BITS / 8 if load_in_4bit else width) + (embeddings + norms) * width


def linear_shapes(config) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the matrices of a layer: seven as in Llama, without a gate in the older models."""
    hidden, mlp = config.hidden_size, mlp_size(config)
    attention, key_values = config.num_attention_heads * head_dim(config), kv_heads(config) * head_dim(config)
    shapes = {
        "q_proj": (hidden, attention), "k_proj": (hidden, key_values), "v_proj": (hidden, key_values),
        "o_proj": (attention, hidden), "gate_proj": (hidden, mlp), "up_proj": (hidden, mlp),
        "down_proj": (mlp, hidden),
    }  # fmt: skip
    if not hasattr(config, "intermediate_size"):  # GPT-2, OPT, ...
        del shapes["gate_proj"]
    return shapes


def mlp_size(config) -> int:
    """f, under any of the names that models give it; GPT-2 leaves it open, and means 4 h."""
    names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    found = next((size for name in names if (size := getattr(config, name, None))), None)
    return found or 4 * config.hidden_size


def head_dim(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def kv_heads(config) -> int:
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def adapter_parameters(config, lora) -> int:
    """L x r x (inputs + outputs) of each matrix that has an adapter (arXiv 2106.09685, section 4.1).

    Each is kept in 32 bits (16 by plain TRL on 4-bit weights), its gradient as well, and two moments in 8 or
    32 (arXiv 2110.02861).
    """
    chosen = lora.target_modules
    shapes = linear_shapes(config)
    names = shapes if chosen == "all-linear" else [name for name in shapes if name in chosen]
    return config.num_hidden_layers * lora.r * sum(sum(shapes[name]) for name in names)


def full_bytes(parameters: float, width: int, optim: str, reference: bool) -> dict[str, float]:
    """What full fine-tuning keeps in one process: {part: bytes}, the weights anew.

    Without DeepSpeed a gradient and AdamW's two moments in the weights' own precision. Under ZeRO
    (arXiv 1910.02054, section 3.1) a 16-bit weight and gradient, and a copy of the weight and the moments in
    32 bits; ZeRO-3 divides all of it by the processes. With a KL term the `reference` model's weights too.
    """
    zero3 = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    moments = 2 if "8bit" in optim else (8 if zero3 else 2 * width)
    parts = {
        "weights": width,
        "their gradient": width,
        "optimizer": moments + (4 if zero3 and width == 2 else 0),
    }
    if reference:
        parts["reference model"] = width
    return {name: parameters * size / (processes() if zero3 else 1) for name, size in parts.items()}


def kv_bytes(config, width: int) -> int:
    """2 L k d numbers a token: a key and a value in each layer (arXiv 2305.13245, section 2)."""
    return 2 * config.num_hidden_layers * kv_heads(config) * head_dim(config) * width


def activation_bytes(config, tokens: int, rank: int, width: int) -> tuple[float, float, float]:
    """(a layer's input, what a layer keeps for its backward pass, gradients that flow through it).

    T h numbers; T x 24 h bytes and T (4 f + 2 k d + 7 r) numbers; T 2 f numbers, and in 16 bits T x 16 h
    bytes, since the norms compute in 32. Counted tensor by tensor, as
    arXiv 2205.05198, section 4.1, does, for RMSNorm in 32 bits, SwiGLU, grouped queries, adapters and
    attention that keeps no scores; a test counts again.
    """
    hidden, mlp = config.hidden_size, mlp_size(config)
    numbers = 4 * mlp + 2 * kv_heads(config) * head_dim(config) + 7 * rank
    gradients = 2 * mlp * width + (16 * hidden if width == 2 else 0)
    return tokens * hidden * width, tokens * (24 * hidden + numbers * width), tokens * gradients


def logit_bytes(config, tokens: int) -> float:
    """TRL: logits, log-probabilities and their gradient, each (completion tokens of a pass, V).

    In 32 bits: Accelerate hands the model's output on so, whatever it computes in.
    """
    return 3 * tokens * config.vocab_size * 4


def unsloth_logit_bytes(config, length: int) -> float:
    """Unsloth: the least that it can do with, 16 bytes for each logit of a chunk of S / 4 tokens, or of 4,096.

    Where memory is free it takes more at a time (unsloth_zoo, autotune_batch_and_chunks).
    """
    return length / max(4, length // 4096) * config.vocab_size * 16


def graph_bytes(config) -> float:
    """172 graphs of 4 h L bytes, at least 0.15 and at most 1 GiB (unsloth_zoo's own estimate)."""
    return min(max(172 * 4 * config.hidden_size * config.num_hidden_layers, 0.15 * 2**30), 2**30)
