"""A GGUF file is a base model like any other. Tests of the real file run if R1NB_QWEN_GGUF names it."""

import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.policy.gguf import mend_gguf
from r1nb.policy.loading import load_policy
from r1nb.recipes.loading import load_recipe

FILE = os.environ.get("R1NB_QWEN_GGUF", "")


def untied(noise: float):
    """The tiny policy as transformers reads it from a GGUF file: with two copies of one matrix."""
    model = AutoModelForCausalLM.from_pretrained(DATA / "tiny-policy")
    embedding = model.get_input_embeddings().weight.detach()
    model.config.tie_word_embeddings = False
    model.config.quantization_config = {}
    copy = embedding * (1 + noise * torch.randn_like(embedding))
    model.get_output_embeddings().weight = torch.nn.Parameter(copy)
    return model, AutoTokenizer.from_pretrained(DATA / "tiny-policy")


@pytest.mark.parametrize(("noise", "tied"), [(0.04, True), (1.0, False)])
def test_two_quantised_copies_of_one_matrix_become_one_again(noise, tied):
    model, tokenizer = untied(noise)
    head = model.get_output_embeddings().weight.clone()
    mend_gguf(model, tokenizer)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert model.config.tie_word_embeddings == tied
    assert model.get_output_embeddings().weight.equal(head)
    assert not hasattr(model.config, "quantization_config")


def test_a_reply_ends_with_the_token_of_the_chat_template_or_of_the_metadata():
    model, tokenizer = untied(0.0)
    chat_end = tokenizer.eos_token_id
    tokenizer.eos_token = tokenizer.pad_token
    model.generation_config.eos_token_id = tokenizer.pad_token_id
    mend_gguf(model, tokenizer)
    assert tokenizer.eos_token_id == chat_end
    assert model.generation_config.eos_token_id == sorted([chat_end, tokenizer.pad_token_id])


@pytest.mark.parametrize("made", [False, True])
def test_a_file_that_is_missing_or_no_gguf_is_refused_in_a_sentence(tmp_path, made):
    if made:
        (tmp_path / "m.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(UserError, match=r"m\.gguf.*(there is no such file|cannot be loaded)"):
        load_policy(load_recipe(model_name=str(tmp_path / "m.gguf")))


@pytest.mark.skipif(not FILE, reason="R1NB_QWEN_GGUF does not name the file")
def test_qwen_from_a_gguf_file_is_a_base_like_any_other():
    policy = load_policy(load_recipe("qwen25-0.5b-cpu", model_name=FILE))
    assert sum(weight.numel() for weight in policy.model.parameters()) == 494_032_768
    assert policy.tokenizer.eos_token == "<|im_end|>"
    assert {policy.tokenizer.decode([end]) for end in policy.end_tokens} == {"<|im_end|>", "<|endoftext|>"}
    assert policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight
