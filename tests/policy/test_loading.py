"""The policy on its real libraries: formatting, adapters, and what is refused."""

import contextlib
import json
import re

import pytest
import torch

from r1nb.errors import UserError
from r1nb.machine.configs import grpo_config
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy, load_trained
from r1nb.recipes.recipe import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import REASONING, ensure_chat_template, format_prompt


@pytest.fixture
def policy(tiny_recipe):
    return load_policy(tiny_recipe, say=lambda line: None)


@pytest.fixture
def prompts():
    return [REASONING.build_messages(q) for q in load_rows("bundled", "validation", layout=REASONING)["question"][:6]]


def randomize(policy, seed=0, scale=0.5):
    """Give the adapter weights that matter: B starts at 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data = scale * torch.randn(weight.shape, generator=generator)


def texts(policy, prompts, **kwargs):
    return [c.text for c in policy.generate(prompts, Sampling(24), **kwargs)]


def test_trl_reads_the_same_tokens(policy, tiny_recipe, tmp_path, prompts):
    from trl import GRPOTrainer

    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=tiny_recipe.reward_funcs(),
        args=grpo_config(tiny_recipe, tmp_path),
        train_dataset=load_rows("bundled", "train", layout=REASONING),
    )
    ours = [
        policy.tokenizer(format_prompt(policy.tokenizer, p), add_special_tokens=False).input_ids
        for p in prompts
    ]
    assert trainer._tokenize_prompts(prompts)[0] == ours


def test_a_model_without_chat_template_gets_the_plain_one(policy):
    policy.tokenizer.chat_template = None
    ensure_chat_template(policy.tokenizer)
    text = format_prompt(policy.tokenizer, REASONING.build_messages("1+1?"), prefill="<reasoning>\n")
    assert text.endswith("</answer>\n\n1+1?\n\n<reasoning>\n")


def test_answers_do_not_depend_on_their_neighbours(policy, prompts):
    together = texts(policy, prompts)
    assert together == [texts(policy, [prompt])[0] for prompt in prompts]


def test_generation_stops_at_its_limit_and_says_so(policy, prompts):
    (one,) = policy.generate(prompts[:1], Sampling(1))
    assert (len(one.ids), one.cut) == (1, True)
    prefilled = texts(policy, prompts, prefill="<reasoning>\n")
    assert all(text.startswith("<reasoning>\n") for text in prefilled)


def test_digits_are_single_tokens(policy):
    tokens = policy.tokenizer.tokenize("12*345=4140")
    assert tokens == list("12*345=4140")


def test_the_tiny_policy_is_tiny():
    from r1nb.paths import DATA

    config = json.loads((DATA / "tiny-policy" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] // config["num_attention_heads"] >= 32
    size = sum(path.stat().st_size for path in (DATA / "tiny-policy").iterdir())
    assert size < 12e6


def test_an_adapter_saved_and_loaded_is_the_same(policy, tiny_recipe, tmp_path, prompts):
    base = texts(policy, prompts)
    attach_lora(policy, tiny_recipe)
    assert texts(policy, prompts) == base  # B = 0
    randomize(policy)
    trained = texts(policy, prompts)
    assert trained != base
    assert texts(policy, prompts, adapter=False) == base
    folder = policy.save_adapter(tmp_path / "adapter")
    again, recipe, _ = load_trained(folder)
    assert texts(again, prompts) == trained
    assert recipe.model.model_name == "tiny-policy"
    merged, _, _ = load_trained(save_merged(policy, tmp_path / "merged"))
    assert texts(merged, prompts) == trained
    assert not merged.has_adapter


def test_plain_peft_loads_the_adapter(policy, tiny_recipe, tmp_path, prompts):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from r1nb.paths import DATA

    attach_lora(policy, tiny_recipe)
    randomize(policy)
    folder = policy.save_adapter(tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-policy"
    base = AutoModelForCausalLM.from_pretrained(DATA / "tiny-policy")
    plain = PeftModel.from_pretrained(base, folder)
    for (name, ours), theirs in zip(
        sorted(policy.model.state_dict().items()),
        (weight for _, weight in sorted(plain.state_dict().items())),
        strict=True,
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["q_proj", "v_porj"], "has no 'v_porj'; did you mean 'v_proj'"),
        (r".*attention\.q_proj", "has no '.*attention"),
        (["self_attn.q_proj"], ""),
        (r".*self_attn\.[qv]_proj", ""),
    ],
)
def test_an_adapter_names_modules_that_the_model_has(tiny_recipe, wanted, words):
    tiny_recipe.lora.target_modules = wanted
    with pytest.raises(UserError, match=re.escape(words)) if words else contextlib.nullcontext():
        load_policy(tiny_recipe, say=lambda line: None)


def test_the_same_seed_starts_from_the_same_adapter(tiny_recipe):
    def start(seed):
        recipe = tiny_recipe.model_copy(update={"grpo": tiny_recipe.grpo | {"seed": seed}})
        policy = load_policy(recipe, say=lambda line: None)
        attach_lora(policy, recipe)
        return torch.cat([w.flatten() for n, w in policy.model.named_parameters() if "lora_A" in n])

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_an_adapter_of_another_base_is_refused(policy, tiny_recipe, tmp_path):
    attach_lora(policy, tiny_recipe)
    folder = policy.save_adapter(tmp_path / "adapter")
    other = load_policy(tiny_recipe, say=lambda line: None)
    other.model.model.norm.weight.data += 1
    with pytest.raises(UserError, match="was made for tiny-policy"):
        other.load_adapter(folder)


def test_folders_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_trained(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither an adapter nor a model"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-such/model", "neither a local folder nor to be had from the Hub"),
        ("./nowhere", "no model folder"),
    ],
)
def test_a_model_that_cannot_be_had_becomes_one_sentence(name, words):
    with pytest.raises(UserError, match=words):
        load_policy(load_recipe(model_name=name), say=lambda line: None)


def test_the_fingerprint_is_the_same_on_a_card_with_either_of_two_precisions(policy):
    policy.model.to(torch.bfloat16)
    small = policy.model.get_input_embeddings().weight.data
    small[::2] *= 1e-6  # where float16 has few digits left
    ours = policy.fingerprint()
    policy.model.to(torch.float16)
    assert policy.fingerprint() == ours
