"""The memory formulas agree with real models, adapters, caches, and with what autograd saves."""

import pytest
import torch
import transformers
from shapes import LLAMA_1B, LLAMA_8B, QWEN_3B
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, T5Config

from r1nb.errors import UserError
from r1nb.machine.fitting import NOT_VISION
from r1nb.machine.hardware import Machine
from r1nb.machine.known_models import published_config
from r1nb.machine.memory import activation_bytes, adapter_bytes, empty_model, kv_bytes, weight_bytes
from r1nb.machine.plan import plan_run
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe

SIZES = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MLP = SIZES | {"intermediate_size": 96}
GROUPED = MLP | {"num_key_value_heads": 2}
# (name of a transformers config, its settings, target modules of an adapter)
MODELS = [
    ("GPT2", SIZES, ["c_attn"]),
    ("GPT2", SIZES | {"n_inner": 80}, "all-linear"),
    ("GPTBigCode", SIZES, ["c_attn", "c_proj"]),
    ("GPTJ", SIZES | {"rotary_dim": 8}, ["fc_in", "q_proj"]),
    ("OPT", SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64}, ["q_proj", "fc1"]),
    ("GPTNeoX", MLP, ["query_key_value"]),
    ("Bloom", SIZES, "all-linear"),
    ("Falcon", SIZES, ["query_key_value", "dense"]),
    ("Falcon", SIZES | {"multi_query": False, "alibi": True}, "all-linear"),
    ("Falcon", SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2}, "all-linear"),
    ("Phi", MLP, ["fc1", "fc2", "dense"]),
    ("Phi3", GROUPED | {"pad_token_id": 0}, ["qkv_proj", "gate_up_proj"]),
    ("Qwen2", GROUPED, "all-linear"),
    ("Qwen3", GROUPED | {"head_dim": 32}, r".*\.[qk]_proj"),
    ("Gemma", GROUPED | {"head_dim": 32}, "all-linear"),
    ("Gemma2", GROUPED | {"head_dim": 32}, "all-linear"),
    ("Mistral", GROUPED, ["q_proj", "v_proj"]),
    ("Mixtral", GROUPED | {"num_local_experts": 2}, ["q_proj", "v_proj"]),
    ("StableLm", GROUPED, "all-linear"),
    ("Cohere", GROUPED | {"pad_token_id": 0}, "all-linear"),
    ("Starcoder2", GROUPED, ["c_fc"]),
]


@pytest.mark.parametrize(
    ("config", "parameters", "in_matrices"),
    [
        (LLAMA_8B, 8_030_261_248, 6_979_321_856),
        (LLAMA_1B, 1_235_814_400, 973_078_528),
        (QWEN_3B, 3_085_938_688, 2_774_532_096),
        (transformers.GPT2Config(), 124_439_808, 84_934_656),
        (transformers.FalconConfig(), 6_921_720_704, 6_625_951_744),
    ],
    ids=["Llama-3.1-8B", "Llama-3.2-1B", "Qwen2.5-3B", "GPT-2", "Falcon-7B"],
)
def test_the_number_of_weights_is_the_published_one(config, parameters, in_matrices):
    packed = in_matrices * 4.127 / 8 + 2 * (parameters - in_matrices)
    for lora in (None, load_recipe().lora):
        empty = empty_model(config, lora)
        assert weight_bytes(empty, load_in_4bit=False, width=2) == 2 * parameters
        assert weight_bytes(empty, load_in_4bit=True, width=2) == pytest.approx(packed)
        assert {weight.device.type for weight in empty.parameters()} == {"meta"}


@pytest.mark.parametrize(("kind", "settings", "targets"), MODELS)
def test_the_plan_is_right_for_models_of_many_kinds(kind, settings, targets):
    """It counts the parameters of model and adapter, and the size of the cache after a forward pass."""
    from peft import LoraConfig, get_peft_model

    config = getattr(transformers, f"{kind}Config")(**settings)
    recipe = load_recipe(target_modules=targets)
    empty = empty_model(config, recipe.lora)
    model = AutoModelForCausalLM.from_config(config).eval()
    parameters = model.num_parameters()
    assert weight_bytes(empty, load_in_4bit=False, width=1) == parameters
    cache = DynamicCache()
    model(input_ids=torch.ones(3, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert held == 3 * 7 * kv_bytes(config, width=4)
    adapted = get_peft_model(model, LoraConfig(r=recipe.lora.r, target_modules=targets))
    trained = adapted.num_parameters(only_trainable=True)
    assert adapter_bytes(empty, number=4, optim="adamw_torch") == 16 * trained > 0
    plan = plan_run(recipe, Machine(2, 24), config)
    assert plan.training["weights"] == pytest.approx(4 * parameters / 1e9)
    assert 1.0 < plan.peak_gb < 3.0


def test_of_a_model_that_reads_images_all_weights_are_counted_and_only_the_text_part_learns():
    config = published_config("google/gemma-3-4b-it")
    lora = load_recipe("tiny-cpu", target_modules=NOT_VISION).lora
    empty = empty_model(config, lora)
    assert weight_bytes(empty, load_in_4bit=False, width=1) == 4_300_079_472
    learns = [name for name, weight in empty.named_parameters() if weight.requires_grad]
    assert len(learns) == 34 * 7 * 2
    assert all("language_model" in name for name in learns)
    assert kv_bytes(config.get_text_config(), 2) == 2 * 34 * 4 * 256 * 2


def test_a_model_without_attention_has_no_cache():
    config = transformers.RwkvConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, attention_hidden_size=64
    )
    recipe = load_recipe(target_modules=["key", "value"])
    plan = plan_run(recipe, Machine(2, 24), config)
    assert plan.sampling["KV cache"] == 0
    assert plan.completions == 150


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (transformers.GPT2Config(**SIZES), "No plan for a gpt2 model: Target modules .*'no_proj'"),
        (T5Config(), "No plan for a t5 model: Unrecognized configuration class"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_one_sentence(config, words):
    with pytest.raises(UserError, match=words):
        plan_run(load_recipe(target_modules=["no_proj"]), Machine(2, 24), config)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "down_proj"]])
def test_the_adapter_in_the_plan_has_the_parameters_of_the_real_one(targets):
    recipe = load_recipe("tiny-cpu", target_modules=targets)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    empty = empty_model(policy.model.config, recipe.lora)
    trained = policy.model.num_parameters(only_trainable=True)
    assert adapter_bytes(empty, number=4, optim="adamw_torch") == 16 * trained
    assert adapter_bytes(empty, number=2, optim="paged_adamw_8bit") == 6 * trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_saves_the_activations_that_the_formula_counts(dtype):
    """They are counted in a model with the proportions of Llama-3.1-8B at a sixteenth of its width."""
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
            if tokens in tensor.shape:  # skips the weights
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
    _, counted, _ = activation_bytes(saved.config, tokens, rank, dtype.itemsize)
    assert counted == pytest.approx(layer, rel=0.02)
