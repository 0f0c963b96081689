"""Published shapes of models, and the GPUs that the recipes are made for."""

from transformers import LlamaConfig, Qwen2Config

from r1nb.machine.hardware import Machine
from r1nb.machine.known_models import published_config

# The model cards of Mistral-7B-v0.3 and Qwen2.5-3B.
LLAMA_8B = published_config("unsloth/Llama-3.1-8B-Instruct")
MISTRAL_7B = LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, vocab_size=32768,
)  # fmt: skip
QWEN_3B = Qwen2Config(
    hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
    num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
)  # fmt: skip
LLAMA_1B = published_config("unsloth/Llama-3.2-1B-Instruct")
CARDS = {
    "llama32-1b-16gb": Machine(2, 13, "Tesla T4", 15.8),
    "llama31-8b-16gb": Machine(2, 13, "Tesla T4", 15.8),
    "llama31-8b-24gb": Machine(8, 53, "NVIDIA L4", 23.6),
    "llama31-8b-40gb": Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4),
    "llama31-8b-seed": Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4),
    "llama31-8b-80gb": Machine(26, 200, "NVIDIA H100 80GB HBM3", 85.0),
    "llama31-8b-141gb": Machine(26, 200, "NVIDIA H200", 150.0),
}


def config_of(name: str):
    """Return the config of the model of a recipe."""
    return LLAMA_1B if "1b" in name else LLAMA_8B
