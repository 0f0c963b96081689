"""Load adapters: PEFT safetensors with a card that names the base model; both are checked before loading.

A folder may come from somebody else, so it is treated as data, not code: nothing in it is unpickled, and
only the settings that a LoRA needs are read from its configuration.
"""

import json
import re
from pathlib import Path

from r1nb.errors import UserError, first_line
from r1nb.machine.model_files import not_finite, read_tensors
from r1nb.policy.cards import Card, prompt_format, read_card, short_name
from r1nb.text.prompts import LAYOUTS, Layout

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# The keys of adapter_config.json that are used. Any other key that has an effect must have its default value.
TAKEN = ("r", "lora_alpha", "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out",
         "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform",
         "layers_pattern")  # fmt: skip
OF_NO_EFFECT = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
                "revision", "inference_mode", "init_lora_weights", "megatron_core",
                "qalora_group_size")  # fmt: skip
NOT_FINITE = (
    "The trained weights are not finite, so the policy is neither evaluated nor saved: go back to the last "
    "checkpoint in the run folder, or train again with a lower learning_rate."
)


def is_finite(model) -> bool:
    """Whether all trained weights of a model are finite: a model with NaN cannot answer."""
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad or "lora_" in name}
    return not not_finite(trained)


def load_onto(policy, folder: Path, layout: Layout | None = None):
    """Load an adapter onto the policy's model; returns a PeftModel.

    `layout` is the layout that will be used; None takes the one on the card. Raises UserError, and leaves the
    base model unchanged, if the adapter was trained on another base model or with another prompt format, has
    another rank than its configuration says, is damaged, or sets options that a LoRA does not need. A base
    model that differs only in its inner matrices, for example a merged one, counts as the original one
    (Policy.fingerprint).
    """
    settings = policy.model_settings
    config, named = _read_config(folder, settings.model_name)
    try:
        tensors = read_tensors(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        why = f"{WEIGHTS} in {folder.name} is damaged ({first_line(error)})"
        raise UserError(f"{why}: copy the adapter again.") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    card, name = read_card(folder), short_name(settings.model_name)
    if why := _why_not(policy, config, shapes, card, layout):
        raise UserError(f"The adapter in {folder.name} {why}.")
    if not card and named not in ("", name):
        print(f"{folder.name} has no card; it names {named} as its base model, but {name} is loaded.")
    return _attach(policy, folder, config, shapes)


def _read_config(folder: Path, model_name: str):
    """(LoraConfig, name of the base model) from adapter_config.json; only harmless keys are used."""
    from peft import LoraConfig

    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        pickled = [path.name for path in folder.glob("adapter_model*") if path.suffix != ".safetensors"]
        why = f"; {pickled[0]} could run code when loaded, so r1nb never loads it" if pickled else ""
        raise UserError(f"{folder} holds no adapter: {missing[0]} is missing{why}.")
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, base = raw["peft_type"], raw.get("base_model_name_or_path") or ""
        taken = {"r": raw["r"]} | {key: value for key, value in raw.items() if key in TAKEN}
        config = LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path=model_name, **taken)
    except Exception as error:  # the file may contain anything
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{CONFIG} in {folder.name} cannot be read ({why}).") from None
    if kind != "LORA":
        raise UserError(f"{CONFIG} in {folder.name} has peft_type {kind!r}: r1nb loads only LoRA adapters.")
    defaults = LoraConfig().to_dict()
    for key, value in raw.items():
        if key not in (*TAKEN, *OF_NO_EFFECT) and value and value != defaults.get(key):
            why = f"sets {key} = {str(value)[:60]!r}, which r1nb does not load"
            raise UserError(f"{CONFIG} in {folder.name} {why}: merge the adapter and load that model.")
    if re.search(r"\)[*+{]", json.dumps(taken)):
        raise UserError(
            f"{CONFIG} in {folder.name} repeats a group in a pattern, so that matching may never end: "
            "list the names of the modules instead."
        )
    return config, base


def _why_not(policy, config, shapes: dict[str, tuple], card: Card | None, layout: Layout | None) -> str:
    """Say why an adapter does not fit the policy's model, from its tensors and its card; "" if it fits."""
    name, limit = short_name(policy.model_settings.model_name), policy.model_settings.max_lora_rank
    ranks = sorted({shape[0] for tensor, shape in shapes.items() if "lora_A" in tensor and shape})
    if not config.rank_pattern and ranks != [config.r]:
        found = ", ".join(map(str, ranks)) or "none"
        return f"has rank {found}, but its {CONFIG} says r = {config.r!r}: copy both again, from the same run"
    if limit and (rank := max(ranks, default=0)) > limit:
        return f"has rank {rank}: set max_lora_rank={rank}, now {limit}"
    if not card:
        return ""
    if card.base_fingerprint != policy.fingerprint():
        base = short_name(card.model.model_name)
        return f"was made for {base}, not for {name} as loaded here; load it on its own base model"
    if not card.prompt:
        return ""
    if layout and layout.name != card.layout:
        return f"was trained with another layout than {layout.name!r}: set layout={card.layout!r}"
    if card.prompt != prompt_format(policy.tokenizer, LAYOUTS[card.layout]):
        return (
            f"was trained with another prompt format than {name} has here (system prompt or chat template): "
            "use the tokenizer and r1nb version that it was trained with; its README.md shows the format"
        )
    return ""


def _attach(policy, folder: Path, config, shapes: dict[str, tuple]):
    from peft import PeftModel, get_peft_model_state_dict

    base = policy.model
    try:
        trainable = policy.model_settings.engine == "unsloth"
        model = PeftModel.from_pretrained(base, str(folder), config=config, is_trainable=trainable)
        expected = {name: tuple(w.shape) for name, w in get_peft_model_state_dict(model).items()}
        if expected != shapes:
            missing, foreign = len(expected.keys() - shapes.keys()), len(shapes.keys() - expected.keys())
            raise ValueError(f"{missing} of its {len(expected)} tensors are missing, {foreign} unexpected")
        return model
    except Exception as error:  # PEFT checks few values before it uses them
        _strip(base)
        name = short_name(policy.model_settings.model_name)
        why = f"does not fit {name}, or its {CONFIG} is damaged: {first_line(error)}"
        raise UserError(f"The adapter in {folder.name} {why}.") from None


def _strip(model) -> None:
    """Remove the LoRA layers that PEFT has put into a model, even if it failed halfway."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            model.set_submodule(name, module.base_layer)
    if hasattr(model, "peft_config"):
        del model.peft_config
