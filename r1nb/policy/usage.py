"""The lines that load a trained policy and ask it a question without r1nb: PEFT's and transformers' own."""

import json

QUESTION = "What is 34 + 58?"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
OF_GGUF = """\
from r1nb import load_trained

policy, recipe, _ = load_trained({trained}, base={base})
messages = recipe.layout.build_messages({question})
print(policy.generate([messages], recipe.greedy)[0].text)"""


def python_lines(base: str | None, trained: str, tokenizer: str, messages, most: int, in_4bit=False) -> str:
    """Python that prints the greedy answer of at most `most` tokens to chat messages.

    `trained` is the folder of an adapter for the model `base`, or of a whole model if `base` is None. Names
    on the Hub will do, too. `in_4bit` loads the base in 4 bits (NF4), as r1nb does.
    """
    if base and base.endswith(".gguf"):  # transformers alone does not mend such a model (policy.gguf)
        return OF_GGUF.format(
            trained=_quoted(trained), base=_quoted(base), question=_quoted(messages[-1]["content"])
        )
    options = 'dtype="auto", device_map="auto"' + ", quantization_config=four_bits" * in_4bit
    load = f"AutoModelForCausalLM.from_pretrained({_quoted(base or trained)}, {options})"
    onto = f"PeftModel.from_pretrained(base, {_quoted(trained)})"
    four_bits = ", ".join(f"{key}={value!r}" for key, value in NF4.items())
    lines = [
        *(["from peft import PeftModel"] if base else []),
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{', BitsAndBytesConfig' * in_4bit}",
        "",
        *([f"four_bits = BitsAndBytesConfig({four_bits}, bnb_4bit_compute_dtype='bfloat16')"] * in_4bit),
        *([f"base = {load}", f"model = {onto}"] if base else [f"model = {load}"]),
        f"tokenizer = AutoTokenizer.from_pretrained({_quoted(tokenizer)})",
        f"messages = {_quoted(messages)}",
        "prompt = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ").to(model.device)",
        "reply = model.generate(",
        f"    **prompt, max_new_tokens={most}, do_sample=False, repetition_penalty=1.0",
        ")",
        'print(tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "\n".join(lines)


def _quoted(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def to_quantize(model: dict) -> bool:
    """Whether r1nb loads a base in 4 bits, and its files do not say so; `model` is a recipe's section."""
    return bool(model.get("load_in_4bit")) and "4bit" not in model["model_name"].lower()
