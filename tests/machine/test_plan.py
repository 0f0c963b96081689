"""The plan: each formula against a real count, the whole against TRL's real step on a CPU."""

import dataclasses

import pytest
import torch
from conftest import ROOT
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig

from r1nb import bench, plan
from r1nb.errors import UserError
from r1nb.machine.hardware import LADDER, Machine
from r1nb.paths import DATA
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.recipe import load_recipe
from r1nb.tasks.rows import load_splits
from r1nb.training.stages import grpo_trainer

# The published shapes: arXiv 2407.21783, table 3, and Llama-3.2's model card.
LLAMA_8B = LlamaConfig(**bench.LLAMA_8B)
MISTRAL_7B = LlamaConfig(**bench.LLAMA_8B | {"vocab_size": 32768})
QWEN_3B = LlamaConfig(
    hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
    num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
)  # fmt: skip
LLAMA_1B = LlamaConfig(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
    num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=True,
)  # fmt: skip
CARDS = {
    "llama32-1b-16gb": Machine(2, 13, "Tesla T4", 15.8),
    "llama31-8b-16gb": Machine(2, 13, "Tesla T4", 15.8),
    "llama31-8b-24gb": Machine(8, 53, "NVIDIA L4", 23.6),
    "llama31-8b-40gb": Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4),
    "llama31-8b-seed": Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4),
    "llama31-8b-80gb": Machine(26, 200, "NVIDIA H100 80GB HBM3", 85.0),
    "llama31-8b-141gb": Machine(26, 200, "NVIDIA H200", 150.0),
}


LONG = {"max_completion_length": 8192, "max_seq_length": 8512}


def shape(name):
    return LLAMA_1B if "1b" in name else LLAMA_8B


@pytest.mark.parametrize("config", [LLAMA_8B, LLAMA_1B], ids=["8B", "1B"])
def test_weights_are_those_of_the_model(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert plan.weight_bytes(config, load_in_4bit=False, width=2) == 2 * model.num_parameters()


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "down_proj"]])
def test_the_adapter_has_as_many_parameters_as_pefts(targets):
    recipe = load_recipe("tiny-cpu", target_modules=targets)
    policy = load_policy(recipe, say=lambda line: None)
    attach_lora(policy, recipe)
    counted = plan.adapter_parameters(policy.model.config, recipe.lora)
    assert counted == policy.model.num_parameters(only_trainable=True)


def test_the_cache_is_as_large_as_transformers_own():
    policy = load_policy(load_recipe(), say=lambda line: None)
    cache = DynamicCache()
    policy.model(input_ids=torch.ones(3, 17, dtype=torch.long), past_key_values=cache)
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert held == 3 * 17 * plan.kv_bytes(policy.model.config, width=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_keeps_what_the_formula_counts(dtype):
    """The tensors that autograd saves, for a Llama-3.1-8B's proportions at a sixteenth of its width."""
    from peft import LoraConfig, get_peft_model

    tokens, rank = 199, 8

    def saved(layers: int) -> int:
        config = LlamaConfig(
            hidden_size=256, intermediate_size=896, num_attention_heads=8, num_key_value_heads=2,
            num_hidden_layers=layers, vocab_size=100,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config).to(dtype)
        lora = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora).train()
        storages = {}

        def pack(tensor):
            if tokens in tensor.shape:  # not the weights
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
        ):
            kept = model.model.model(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False)
        del kept
        saved.config = config
        return sum(storages.values())

    layer = (saved(4) - saved(2)) / 2
    _, counted, _ = plan.activation_bytes(saved.config, tokens, rank, dtype.itemsize)
    assert counted == pytest.approx(layer, rel=0.02)


# Its logits weigh more than its layers.
WIDE = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 20_000,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("wide", [False, True], ids=["tiny policy", "wide vocabulary"])
def test_the_peak_of_a_real_step_is_what_the_plan_says(tmp_path, dtype, checkpointing, wide):
    """Allocations counted by PyTorch while TRL computes loss and gradient, within 10 %."""
    prompt_length, completion_length = 40, 32
    name = str(bench.random_llama(tmp_path / "model", WIDE, "float32")) if wide else "tiny-policy"
    recipe = load_recipe(
        "tiny-cpu",
        model_name=name,
        per_device_train_batch_size=16,
        max_completion_length=completion_length,
        max_prompt_length=prompt_length,
        gradient_checkpointing=checkpointing,
        dtype=dtype,
        bf16=dtype == "bfloat16",
        runs_dir=str(tmp_path),
    )
    policy = load_policy(recipe, say=lambda line: None)
    attach_lora(policy, recipe)
    trainer = grpo_trainer(
        policy, load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0], recipe, tmp_path
    )
    trainer.model.train()
    if checkpointing:  # as trainer.train() does first
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.accelerator.prepare(trainer.model)  # autocast
    prompts = torch.ones(16, prompt_length, dtype=torch.long)
    completions = torch.ones(16, completion_length, dtype=torch.long)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.randn(16),
        "num_items_in_batch": torch.tensor(completions.numel()),
    }
    trainer.compute_loss(model, inputs).backward()  # the first call allocates the gradients
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trainer.compute_loss(model, inputs).backward()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    training = plan.estimate(recipe, Machine(2, 24), policy.model.config).training
    planned = training["logits"] + training["activations beside the logits"]
    assert planned == pytest.approx(peak / 1e9, rel=0.1)


@pytest.mark.parametrize("name", CARDS)
def test_every_preset_fits_its_card(name):
    made = plan.plan_run(load_recipe(name), CARDS[name], shape(name))
    assert made.peak_gb < 0.95 * made.card_gb
    assert made.completions >= load_recipe(name).group_size
    assert f"The peak is {made.peak_gb:.2f} GB" in str(made)
    assert made.step_seconds[0] < made.step_seconds[1]


def test_presets_grow_with_their_cards():
    peaks = [plan.estimate(load_recipe(name), CARDS[name], shape(name)).peak_gb for name in LADDER]
    assert peaks == sorted(peaks)


@pytest.mark.parametrize(
    ("name", "changes", "card", "remedy"),
    [
        ("llama31-8b-80gb", LONG, "llama31-8b-24gb", "lower per_device_train_batch_size to"),
        ("llama31-8b-40gb", {"load_in_4bit": False}, "llama31-8b-16gb", "choose a smaller model"),
        ("llama31-8b-seed", {"gpu_memory_utilization": 0.95}, "llama31-8b-40gb", "lower gpu_memory"),
        ("llama31-8b-40gb", {"gpu_memory_utilization": 1.0}, "llama31-8b-40gb", "lower gpu_memory"),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_setting_to_lower(name, changes, card, remedy):
    recipe = load_recipe(name, **changes)
    with pytest.raises(UserError, match=f"needs .* GB and .*{remedy}"):
        plan.plan_run(recipe, CARDS[card], LLAMA_8B)


def test_a_cache_without_room_for_one_completion_is_refused():
    recipe = load_recipe("llama31-8b-seed", gpu_memory_utilization=0.135)
    with pytest.raises(UserError, match=r"leaves vLLM's cache on .* no room for a single completion: "):
        plan.plan_run(recipe, CARDS["llama31-8b-40gb"], LLAMA_8B)


def test_the_remedy_works():
    recipe = load_recipe("llama31-8b-80gb", unsloth_vllm_standby=False, gpu_memory_utilization=0.5)
    small = dataclasses.replace(CARDS["llama31-8b-40gb"], gpu_memory_gb=30.0)
    with pytest.raises(UserError) as refused:
        plan.plan_run(recipe, small, LLAMA_8B)
    words = str(refused.value).split("lower ")[1].rstrip(".").split(" to ")
    changed = load_recipe(
        "llama31-8b-80gb", unsloth_vllm_standby=False, gpu_memory_utilization=0.5,
        **{words[0]: type(recipe.grpo.get(words[0], 0.5))(float(words[1])), "num_generations": 8},
    )  # fmt: skip
    assert plan.plan_run(changed, small, LLAMA_8B).fits


@pytest.mark.parametrize(
    ("card", "config", "seconds"),
    [
        ("Tesla T4", LLAMA_8B, 55.0),
        ("NVIDIA GeForce RTX 4090", MISTRAL_7B, 10.3),
        ("Tesla T4", QWEN_3B, 24.2),
    ],
    ids=["Llama-3.1-8B", "Mistral-7B", "Qwen2.5-3B"],
)
def test_published_step_times_lie_within_the_plans_range(card, config, seconds):
    """Steps of 6 completions of 200 tokens with 4-bit weights, from Unsloth's issues (#3542 and others)."""
    made = plan.estimate(load_recipe("llama31-8b-seed"), Machine(8, 32, card, 24.0), config)
    low, high = made.step_seconds
    assert 0.8 * low < seconds < 1.2 * high


def test_an_unknown_card_gets_no_minutes():
    made = plan.estimate(load_recipe("llama31-8b-40gb"), Machine(8, 64, "NVIDIA B999", 200.0), LLAMA_8B)
    assert made.step_seconds is None
    assert "minutes" not in str(made)


def test_without_a_config_the_models_own_is_read():
    made = plan.plan_run(load_recipe(), Machine(2, 24))
    assert made == plan.plan_run(
        load_recipe(), Machine(2, 24), AutoConfig.from_pretrained(DATA / "tiny-policy")
    )
    tight = Machine(2, 1.5)
    with pytest.raises(
        UserError, match=r"Recipe tiny-cpu needs .* this machine has 1.5 GB: lower per_device"
    ):
        plan.plan_run(load_recipe(), tight)


def test_the_readme_shows_the_plans_own_figures():
    readme = (ROOT / "README.md").read_text()
    for name in LADDER:
        recipe = load_recipe(name)
        made = plan.estimate(recipe, CARDS[name], shape(name))
        groups = recipe.batch_size // recipe.group_size
        (row,) = (line for line in readme.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        completions = f"{groups} x {recipe.group_size}"
        assert cells[3:] == [f"{recipe.grpo['max_completion_length']:,}", completions, f"{made.peak_gb:.1f}"]
    seed = plan.estimate(load_recipe("llama31-8b-seed"), CARDS["llama31-8b-seed"], LLAMA_8B)
    assert f"by the plan they do, with {seed.peak_gb:.1f} GB" in readme


def test_full_fine_tuning_takes_what_the_page_of_launch_files_says(monkeypatch):
    recipe = load_recipe("llama31-8b-seed-4gpu")
    card = CARDS["llama31-8b-80gb"]
    with pytest.raises(UserError, match=r"needs 96\.6 GB and NVIDIA H100 80GB HBM3 has 85\.0 GB"):
        plan.plan_run(recipe, card, LLAMA_8B)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    monkeypatch.setenv("WORLD_SIZE", "3")
    made = plan.plan_run(recipe, card, LLAMA_8B)
    shared = [made.training[part] for part in ("weights", "their gradient", "optimizer")]
    assert round(sum(shared), 1) == 42.8
    assert round(3 * sum(shared), 1) == 128.5
    assert round(made.training["reference model"], 1) == 5.4
    assert "A step takes 192 completions, 64 in each of 3 processes." in str(made)
