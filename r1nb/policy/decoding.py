"""Free a model of decoding options that come with its files."""

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
