"""Mend a model that transformers has read from a GGUF file: the format loses what ties it together."""

from r1nb.text.prompts import REASONING

ALIKE = 0.1  # relative difference of two quantised copies of the same weights: 5 bits differ by 0.04 from 8


def mend_gguf(model, tokenizer) -> None:
    """Tie the head to the embedding again; end replies with the token that ends them in the chat template.

    llama.cpp stores a shared matrix twice, the head's copy in more bits: both layers get that one. The
    metadata names one end token, often that of plain text and not that of a chat; replies end with either.
    """
    model.hf_quantizer, model.is_quantized = None, False  # the weights are dequantized: now they can be saved
    del model.config.quantization_config
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is not embedding.weight and _alike(embedding.weight.detach(), head.weight.detach()):
        embedding.weight, model.config.tie_word_embeddings = head.weight, True
    ends = {tokenizer.eos_token_id, model.generation_config.eos_token_id, end := _end_of_reply(tokenizer)}
    if end is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    ends = sorted(ends - {None})
    model.generation_config.eos_token_id = model.config.eos_token_id = ends
    model.name_or_path = model.config.name_or_path = ""  # PEFT would look there for a config.json


def _alike(one, other) -> bool:
    return one.shape == other.shape and bool((one - other).float().norm() < ALIKE * other.float().norm())


def _end_of_reply(tokenizer) -> int | None:
    """The special token after a reply in the chat template; None if there is none."""
    if not tokenizer.chat_template:
        return None
    reply = "r1nb-reply"
    messages = [*REASONING.build_messages("?")[1:], {"role": "assistant", "content": reply}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(reply)[2]
    ids = tokenizer(after.lstrip(), add_special_tokens=False).input_ids
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None
