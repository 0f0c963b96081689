"""Small copies of today's models: prompts, end tokens, two GRPO steps, saved adapters."""

import pytest
import torch
from families import FAMILIES, odd_reward, recipe_of, tokenizer_of, write_copy
from transformers import LogitsProcessor

from r1nb.machine.configs import grpo_config
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


@pytest.fixture(scope="module", params=FAMILIES)
def copy(request, tmp_path_factory):
    """Return (family, the folder of its small copy)."""
    folder = tmp_path_factory.mktemp(request.param)
    write_copy(request.param, folder)
    return FAMILIES[request.param], folder


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
    policy = load_policy(recipe_of(*copy, tmp_path))
    expected = family.prompt.replace("How many?", "{question}")
    assert prompt_format(policy.tokenizer, REASONING) == expected
    ids = policy.tokenizer(
        format_prompt(policy.tokenizer, REASONING.build_messages("1")), add_special_tokens=False
    )
    assert ids.input_ids.count(policy.tokenizer.bos_token_id) == bool(family.bos)


def test_a_reply_ends_at_each_of_the_models_end_tokens(copy, tmp_path):
    family, _ = copy
    policy = load_policy(recipe_of(*copy, tmp_path))
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


def test_two_grpo_steps_train_an_adapter_that_is_saved_loaded_and_merged(copy, tmp_path, capsys):
    family, _ = copy
    recipe = recipe_of(*copy, tmp_path)
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
    whole = load_policy(recipe_of(family, tmp_path / "merged", tmp_path))
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
