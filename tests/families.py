"""Small copies of today's models, with random weights and a tokenizer that has their special tokens.

The chat templates are those of TRL's wheel, which has none of SmolLM3 and of Phi-4-mini. For these two the
templates here do what the models' own do, as far as it matters: which tokens, which order, what is replaced.
"""

from dataclasses import dataclass, field
from importlib import resources

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from r1nb.machine.fitting import FUSED, NOT_VISION
from r1nb.paths import DATA
from r1nb.recipes.loading import load_recipe
from r1nb.text.prompts import REASONING

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True, "initializer_range": 0.2,
    "bos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75,
    "short_factor": [1.0] * 6, "long_factor": [2.0] * 6, "original_max_position_embeddings": 4096,
}  # fmt: skip
# It removes /think and /no_think from the system message, and </think> with it.
SMOLLM3 = """\
{% set thinks = enable_thinking is not defined or enable_thinking %}
{% set system = messages[0].content if messages[0].role == 'system' else 'You are a helpful AI assistant.' %}
{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' }}
{{- ('/think' if thinks else '/no_think') + '\n\n## Custom Instructions\n\n' }}
{{- system.replace('/no_think', '').replace('/think', '').rstrip() + '\n\n' }}
{%- for message in messages if message.role != 'system' %}
{{- '<|im_start|>' + message.role + '\n' }}
{{- ('<think>\n\n</think>\n' if message.role == 'assistant' and not thinks else '') + message.content }}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' + ('' if thinks else '<think>\n\n</think>\n') }}
{%- endif %}"""
PHI4 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)
SYSTEM = REASONING.system_prompt
CHATML = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
)
GEMMA = f"<bos><start_of_turn>user\n{SYSTEM}\n\nHow many?<end_of_turn>\n<start_of_turn>model\n"
NO_SHARING = "the model keeps no cache that can be shared"


@dataclass
class Family:
    """A kind of model; `ends` are the tokens of its generation_config, the first is its tokenizer's."""

    config: type
    template: str
    ends: list[str]
    prompt: str  # in the layout `reasoning`
    bos: str | None = None
    settings: dict = field(default_factory=dict)
    targets: list[str] | str | None = None  # None: as in the recipes
    obstacle: str | None = None
    options: dict | None = None  # chat_template_kwargs


IM_END = ["<|im_end|>", "<|endoftext|>"]
GEMMA_ENDS = ["<eos>", "<end_of_turn>"]
LLAMA_HEAD = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
)
FAMILIES = {
    "qwen2.5": Family(Qwen2Config, "qwen2_5", IM_END, CHATML),
    "qwen3": Family(
        Qwen3Config, "qwen3", IM_END, CHATML + "<think>\n\n</think>\n\n", options={"enable_thinking": False}
    ),
    "llama-3.2": Family(
        LlamaConfig, "llama3_2", ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
        f"{LLAMA_HEAD}Today Date: {{date}}\n\n{SYSTEM}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "How many?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|begin_of_text|>",
    ),
    "gemma-3-1b": Family(
        Gemma3TextConfig, "gemma3", GEMMA_ENDS, GEMMA, "<bos>", {"sliding_window": 16}, obstacle=NO_SHARING
    ),
    "gemma-3-4b": Family(
        Gemma3Config, "gemma3", GEMMA_ENDS, GEMMA, "<bos>", {"sliding_window": 16}, NOT_VISION, NO_SHARING
    ),
    "smollm3": Family(
        SmolLM3Config, SMOLLM3, ["<|im_end|>"],
        "<|im_start|>system\n## Metadata\n\nToday Date: {date}\nReasoning Mode: /no_think\n\n"
        f"## Custom Instructions\n\n{SYSTEM}\n\n<|im_start|>user\nHow many?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n",
        settings={"no_rope_layers": [1, 0]}, options={"enable_thinking": False},
    ),
    "phi-4-mini": Family(
        Phi3Config, PHI4, ["<|endoftext|>", "<|end|>"],
        f"<|system|>{SYSTEM}<|end|><|user|>How many?<|end|><|assistant|>",
        settings={"rope_parameters": LONGROPE, "max_position_embeddings": 8192}, targets=FUSED,
        obstacle="the rotary frequencies depend on the longest sequence",
    ),
}  # fmt: skip
MARKS = ["<|im_start|>", "<think>", "</think>", "<start_of_turn>", "<|start_header_id|>", "<|end_header_id|>",
         "<|system|>", "<|user|>", "<|assistant|>"]  # fmt: skip


def tokenizer_of(family: Family):
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")
    if "{" in (template := family.template):
        tokenizer.chat_template = template
    else:
        tokenizer.chat_template = (resources.files("trl") / f"chat_templates/{template}.jinja").read_text()
    used = [mark for mark in MARKS if mark in family.prompt]
    special = {
        "eos_token": family.ends[0],
        "pad_token": "<pad>",
        "extra_special_tokens": [*family.ends, *used],
    }
    tokenizer.add_special_tokens(special | ({"bos_token": family.bos} if family.bos else {}))
    return tokenizer


def write_copy(name: str, folder) -> None:
    """Write the small copy of a family into a folder."""
    family, tokenizer = FAMILIES[name], tokenizer_of(FAMILIES[name])
    shape = SIZES | family.settings | {"vocab_size": len(tokenizer)}
    if family.config is Gemma3Config:
        config = Gemma3Config(text_config=shape, vision_config=VISION, mm_tokens_per_image=1)
    else:
        config = family.config(**shape)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    ends = tokenizer.convert_tokens_to_ids(family.ends)
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe_of(family: Family, model, runs, **changes):
    """Return a recipe for a copy, in the folder `model`, that trains quickly."""
    targets = family.targets or load_recipe("llama31-8b-40gb").lora.target_modules
    given = {"chat_template_kwargs": family.options} if family.options else {}
    return load_recipe(
        "tiny-five-rewards", model_name=str(model), runs_dir=str(runs), r=4, target_modules=targets,
        max_steps=2, max_completion_length=8, max_seq_length=1024, per_device_train_batch_size=8,
        num_generations=4, learning_rate=0.01, warmup_steps=0, **given | changes,
    )  # fmt: skip


def odd_reward(completion_ids, **columns):
    """Return rewards that differ within most groups."""
    return [float(sum(ids) % 2) for ids in completion_ids]
