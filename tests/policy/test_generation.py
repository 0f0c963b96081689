"""Generation with packed weights and shared keys: the same model, and nothing is left behind."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from r1nb.policy.generation import draw, faster, packed

SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.2,
    "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().to(torch.bfloat16).eval()
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


@pytest.mark.parametrize("tokens", [1, 5])
def test_packed_weights_give_the_same_logits(model, tokens):
    ids, mask = torch.randint(3, 300, (4, 9)), torch.ones(4, 9, dtype=torch.long)
    mask[1, :3] = 0
    with torch.no_grad():
        before = model(input_ids=ids[:, : 9 - tokens], attention_mask=mask[:, : 9 - tokens])
        rest = {"input_ids": ids[:, 9 - tokens :], "attention_mask": mask}
        kept = [(layer.keys.clone(), layer.values.clone()) for layer in before.past_key_values.layers]
        expected = model(**rest, past_key_values=before.past_key_values).logits
        for layer, (keys, values) in zip(before.past_key_values.layers, kept, strict=True):
            layer.keys, layer.values = keys, values
        with packed(model):
            found = model(**rest, past_key_values=before.past_key_values).logits
    assert (found - expected).float().norm() < 0.02 * expected.float().norm()


def test_afterwards_the_model_is_as_before(model):
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    forwards = [module.forward.__func__ for module in model.modules()]
    with pytest.raises(ZeroDivisionError), faster(model):
        raise ZeroDivisionError
    assert [module.forward.__func__ for module in model.modules()] == forwards
    assert model.config._attn_implementation == "sdpa"
    assert all(weights[name].equal(weight) for name, weight in model.state_dict().items())


def test_without_its_adapter_the_base_answers(model):
    ids = torch.randint(3, 300, (3, 6))
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    base = MODELS["llama" if "Llama" in type(model.get_base_model()).__name__ else "qwen2"]()
    base.load_state_dict(
        {
            name.replace("base_model.model.", "").replace(".base_layer", ""): weight
            for name, weight in model.state_dict().items()
            if "lora_" not in name
        }
    )
    base = base.to(torch.bfloat16).eval()
    with torch.no_grad(), faster(base):
        expected = base.generate(ids, **settings)
    with torch.no_grad(), model.disable_adapter(), faster(model):
        assert model.generate(input_ids=ids, **settings).equal(expected)
    with torch.no_grad(), faster(model):
        assert not model.generate(input_ids=ids, **settings).equal(expected)


@pytest.mark.parametrize("size", [5, 128, 300])
def test_draws_have_the_given_chances(size):
    torch.manual_seed(0)
    chances = torch.rand(size)
    chances[::3] = 0.0
    chances /= chances.sum()
    drawn = draw(chances.expand(20_000, size))[:, 0].bincount(minlength=size) / 20_000
    assert not drawn[chances == 0].any()
    assert (drawn - chances).abs().max() < 5 * (chances.max() / 20_000) ** 0.5
