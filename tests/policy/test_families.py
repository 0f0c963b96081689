"""Small copies of today's models, with random weights: prompts, end tokens, two GRPO steps, saved adapters.

The chat templates are those of TRL's wheel, which has none of SmolLM3 and of Phi-4-mini. For these two the
templates here do what the models' own do, as far as it matters: which tokens, which order, what is replaced.
"""

from dataclasses import dataclass, field
from importlib import resources

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    LogitsProcessor,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from r1nb.machine.configs import grpo_config
from r1nb.machine.fitting import FUSED, NOT_VISION
from r1nb.paths import DATA
from r1nb.policy.cards import prompt_format
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import REASONING, THINK, format_prompt
from r1nb.text.templates import prepare_tokenizer
from r1nb.training.stages import _as_tokens
from r1nb.training.trainer import SharedPromptTrainer

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
    targets: list[str] | str = "as in the recipes"
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


@pytest.fixture(scope="module", params=FAMILIES)
def copy(request, tmp_path_factory):
    """Return (family, the folder of its small copy)."""
    family, folder = FAMILIES[request.param], tmp_path_factory.mktemp(request.param)
    tokenizer = tokenizer_of(family)
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
    return family, folder


def recipe_of(copy, runs, **changes):
    family, folder = copy
    targets = load_recipe("llama31-8b-40gb").lora.target_modules
    given = {"chat_template_kwargs": family.options} if family.options else {}
    return load_recipe(
        "tiny-cpu", model_name=str(folder), runs_dir=str(runs), r=4, max_steps=2, max_completion_length=8,
        max_seq_length=1024, per_device_train_batch_size=8, num_generations=4, learning_rate=0.01,
        warmup_steps=0, lr_scheduler_type="constant",
        target_modules=targets if family.targets == "as in the recipes" else family.targets,
        **given | changes,
    )  # fmt: skip


class EndsAfter(LogitsProcessor):
    """Force one of the end tokens, each in turn, after a few tokens."""

    def __init__(self, ends, width, length):
        self.ends, self.width, self.length, self.rows = ends, width, length, 0

    def __call__(self, ids, scores):
        if ids.size(1) - self.width == self.length:
            scores = torch.full_like(scores, -torch.inf)
            for row in scores:
                row[self.ends[self.rows % len(self.ends)]] = 0.0
                self.rows += 1
        return scores


def test_the_prompt_is_that_of_the_models_template(copy, tmp_path):
    family, _ = copy
    policy = load_policy(recipe_of(copy, tmp_path))
    expected = family.prompt.replace("How many?", "{question}")
    assert prompt_format(policy.tokenizer, REASONING) == expected
    ids = policy.tokenizer(
        format_prompt(policy.tokenizer, REASONING.build_messages("1")), add_special_tokens=False
    )
    assert ids.input_ids.count(policy.tokenizer.bos_token_id) == bool(family.bos)


def test_a_reply_ends_at_each_of_the_models_end_tokens(copy, tmp_path):
    family, _ = copy
    policy = load_policy(recipe_of(copy, tmp_path))
    ends = policy.tokenizer.convert_tokens_to_ids(family.ends)
    assert policy.end_tokens == sorted(ends)
    prompts = [REASONING.build_messages("1")] * 3
    width = len(
        policy.tokenizer(format_prompt(policy.tokenizer, prompts[0]), add_special_tokens=False).input_ids
    )
    generate = policy.model.generate
    policy.model.generate = lambda *args, **kwargs: generate(
        *args, logits_processor=[EndsAfter(ends, width, 5)], **kwargs
    )
    for reply in policy.generate(prompts, Sampling(12)):
        assert (reply.cut, len(reply.ids)) == (False, 5)
    assert all(end not in policy.tokenizer.decode(reply.ids) for end in family.ends)


def odd_reward(completion_ids, **columns):
    """Return rewards that differ within most groups."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def test_two_grpo_steps_train_an_adapter_that_is_saved_loaded_and_merged(copy, tmp_path, capsys):
    family, _ = copy
    recipe = recipe_of(copy, tmp_path)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    before = {
        name: weight.clone() for name, weight in policy.model.named_parameters() if weight.requires_grad
    }
    assert not any("vision" in name or "lm_head" in name for name in before)
    rows = load_rows("bundled", "train").select(range(8))
    args = grpo_config(recipe, tmp_path / "run")
    args.reward_weights = None
    trainer = SharedPromptTrainer(policy.model, odd_reward, args, rows, processing_class=policy.tokenizer)
    assert trainer.obstacle == family.obstacle
    assert sorted(trainer.eos_token_ids) == policy.end_tokens
    trainer.train()
    moved = [
        name
        for name, weight in policy.model.named_parameters()
        if name in before and not weight.equal(before[name])
    ]
    assert len(moved) == len(before)
    if not family.obstacle:
        same_figures(trainer)
    prompts = [REASONING.build_messages(question) for question in rows["question"][:3]]
    trained = policy.generate(prompts, Sampling(6))
    policy.save_adapter(tmp_path / "adapter")
    again = load_policy(recipe)
    assert again.generate(prompts, Sampling(6)) != trained
    again.load_adapter(tmp_path / "adapter", REASONING)
    assert again.generate(prompts, Sampling(6)) == trained
    save_merged(again, tmp_path / "merged")  # compares the logits
    whole = load_policy(recipe_of((family, tmp_path / "merged"), tmp_path))
    assert whole.generate(prompts, Sampling(6)) == trained


def same_figures(trainer):
    """SharedPromptTrainer's log-probabilities are those of TRL's code."""
    torch.manual_seed(1)
    ids = torch.randint(30, 300, (4, 12))
    ids[1:, :7] = ids[0, :7]
    mask = torch.ones_like(ids)
    mask[2, 10:] = 0
    trainer.model.eval()
    with torch.no_grad():
        ours = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 5)[0]
        trainer.obstacle = "the test compares"
        theirs = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 5)[0]
    kept = mask[:, -5:].bool()
    torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("name", ["qwen3", "smollm3"])
def test_the_tags_of_a_models_own_thinking_can_be_the_format(name, thinking):
    """The policy writes the whole reply, also if the template would begin it, or cut reasoning out of it."""
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    prepare_tokenizer(tokenizer, THINK, {} if thinking is None else {"enable_thinking": thinking})
    messages = THINK.build_messages("How many?")
    prompt = format_prompt(tokenizer, messages)
    assert THINK.system_prompt in prompt  # SmolLM3's template would take </think> out of a system message
    assert prompt.endswith("How many?<|im_end|>\n<|im_start|>assistant\n")
    ideal = THINK.format_reply("3 + 4 = 7", "7")
    example = {"prompt": messages, "completion": [{"role": "assistant", "content": ideal}]}
    tokens = _as_tokens(example, tokenizer)
    written = [token for token in tokens["labels"] if token != -100]
    assert tokenizer.decode(written).startswith(f"{ideal}<|im_end|>")
    reply = tokenizer.decode(written, skip_special_tokens=True).strip()
    judge = load_recipe("tiny-five-rewards", layout="think").judge()
    scores = {name: reward.score(reply, answer="7") for name, reward in judge.rewards.items()}
    assert scores == {name: reward.high for name, reward in judge.rewards.items()}
