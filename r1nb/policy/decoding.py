"""Free a model of decoding options that come with its files; check its tokens."""

from r1nb.errors import UserError
from r1nb.text.prompts import Layout, format_prompt

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Keys of generation_config.json that TRL and r1nb set themselves, or that do not change the tokens.
NO_EFFECT = ("do_sample", "temperature", "top_p", "top_k", "max_length", "max_new_tokens", "use_cache",
             "cache_implementation", "_from_model_config", "transformers_version")  # fmt: skip


def decode_plainly(model) -> list[str]:
    """Keep only the token ids of a model's generation_config; returns a sentence if others had an effect.

    GRPO needs completions that are sampled from the policy itself, and evaluation measures the same policy. A
    repetition penalty, forbidden tokens or a least length would change them behind the recipe's back.
    """
    from transformers import GenerationConfig

    old, neutral = model.generation_config.to_diff_dict(), GenerationConfig._get_default_generation_params()
    model.generation_config = GenerationConfig(**{key: old[key] for key in TOKEN_IDS if key in old})
    known = (*TOKEN_IDS, *NO_EFFECT)
    gone = {key: value for key, value in old.items() if key not in known and value not in (None, False)}
    gone = [f"{key} = {value}" for key, value in gone.items() if value != neutral.get(key)]
    return gone and [
        f"Not used of the model's generation_config.json, since the recipe decides: {', '.join(gone)}."
    ]


def set_end_token(model, tokenizer) -> None:
    """If a tokenizer has no end token, give it the one of generation_config; let it pad with it, too.

    Raises UserError if generation_config names something else than tokens, or if there is no end token.
    """
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named] * (named is not None)
    if any(not isinstance(each, int) for each in ends):
        raise UserError(
            f"The model's generation_config.json has eos_token_id = {named!r}: write a token id, which is an "
            "integer, or a list of token ids."
        )
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0]) if ends else None
    if tokenizer.eos_token is None:
        why = "This model has no end token, so its answers would never end"
        raise UserError(f"{why}: set eos_token in its tokenizer_config.json.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def check_tokens(model, tokenizer, layout: Layout) -> None:
    """Raise UserError if a token of each prompt, or the end or pad token, has no row in the embedding."""
    prompt = format_prompt(tokenizer, layout.build_messages("1"))
    used = tokenizer(prompt, add_special_tokens=False).input_ids
    rows = len(model.get_input_embeddings().weight)
    if (last := max(*used, tokenizer.eos_token_id, tokenizer.pad_token_id)) >= rows:
        raise UserError(
            f"The tokenizer uses {tokenizer.convert_ids_to_tokens(last)!r} with token id {last}, but the "
            f"model's embedding has only {rows} rows: use the model's tokenizer, or enlarge its embedding."
        )
