"""Models that are known by name: with their shapes a plan needs no network, and what else differs."""

import re
from pathlib import Path

OWNERS = ("unsloth", "Qwen", "google", "meta-llama", "HuggingFaceTB", "microsoft")
PACKED = re.compile(r"(-unsloth)?-bnb-4bit$")  # Unsloth's copies in 4 bits have the same shape
COLUMNS = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
           "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")  # fmt: skip
# As in each model's config.json; a test compares the numbers of parameters with the published ones.
SHAPES = {
    "Llama-3.1-8B-Instruct": ("llama", 4096, 14336, 32, 32, 8, 128, 128256, False),
    "Llama-3.2-1B-Instruct": ("llama", 2048, 8192, 16, 32, 8, 64, 128256, True),
    "Llama-3.2-3B-Instruct": ("llama", 3072, 8192, 28, 24, 8, 128, 128256, True),
    "Qwen2.5-0.5B-Instruct": ("qwen2", 896, 4864, 24, 14, 2, 64, 151936, True),
    "Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, True),
    "Qwen2.5-3B-Instruct": ("qwen2", 2048, 11008, 36, 16, 2, 128, 151936, True),
    "Qwen2.5-7B-Instruct": ("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, False),
    "Qwen3-0.6B": ("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, True),
    "Qwen3-1.7B": ("qwen3", 2048, 6144, 28, 16, 8, 128, 151936, True),
    "Qwen3-4B": ("qwen3", 2560, 9728, 36, 32, 8, 128, 151936, True),
    "gemma-3-1b-it": ("gemma3_text", 1152, 6912, 26, 4, 1, 256, 262144, True),
    "gemma-3-4b-it": ("gemma3_text", 2560, 10240, 34, 8, 4, 256, 262208, True),
    "SmolLM3-3B": ("smollm3", 2048, 11008, 36, 16, 4, 128, 128256, True),
    "Phi-4-mini-instruct": ("phi3", 3072, 8192, 32, 24, 8, 128, 200064, True),
}
# The vision tower of a model that also reads images.
VISION = {
    "gemma-3-4b-it": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
        "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
        "vision_use_head": False,
    },
}  # fmt: skip


def known_as(name: str) -> str:
    """The name under which a model is in SHAPES; "" for other models, and for a local folder."""
    owner, _, short = PACKED.sub("", name).rpartition("/")
    return short if owner in OWNERS and short in SHAPES and not Path(name).exists() else ""


def short_name(name: str) -> str:
    """A model's name without its owner; Kaggle's folders end in a version, those of the Hub's cache too."""
    path = Path(PACKED.sub("", name))
    above = path.parent.name
    if above == "snapshots":
        return path.parent.parent.name.rpartition("--")[2] or path.name
    return f"{above}-{path.name}" if above and path.name.isdigit() else path.name


def thinks(name: str) -> bool:
    """Whether a model can think before it answers: the chat template of its folder reads enable_thinking.

    On the Hub it is known by the model's name: of Qwen3, the -Instruct-2507 do not think.
    """
    if (folder := Path(name).expanduser()).is_dir():
        files = (folder / "chat_template.jinja", folder / "tokenizer_config.json")
        return any(b"enable_thinking" in file.read_bytes() for file in files if file.is_file())
    owner, _, short = PACKED.sub("", name).rpartition("/")
    return owner in OWNERS and bool(re.fullmatch(r"Qwen3-[\d.]+B|SmolLM3-3B", short))


def published_config(name: str):
    """The transformers config of a model in SHAPES, as far as it decides the size; None for other models."""
    from transformers import AutoConfig

    if not (short := known_as(name)):
        return None
    shape = dict(zip(COLUMNS, SHAPES[short], strict=True))
    if vision := VISION.get(short):
        return AutoConfig.for_model("gemma3", text_config=shape, vision_config=vision)
    return AutoConfig.for_model(**shape)
