"""Adapters on disk: PEFT safetensors with a card of what they belong to; checked before they are loaded.

A folder that came from elsewhere is data, not code: nothing in it is unpickled, and of its configuration
only what a LoRA needs is taken over.
"""

import json
import re
from pathlib import Path
from typing import Literal, Required

from pydantic import PositiveInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from r1nb.errors import UserError, first_line
from r1nb.machine.model_files import not_finite, read_tensors
from r1nb.policy.cards import NAME, prompt_format, read_card, short_name
from r1nb.text.prompts import LAYOUTS, Layout

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OF_NO_EFFECT = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
                "revision", "inference_mode", "init_lora_weights", "megatron_core",
                "qalora_group_size")  # fmt: skip
NOT_FINITE = (
    "The trained weights are not finite, so the policy is neither asked nor saved: go back to the last "
    "checkpoint in the run folder, or train again with a lower learning_rate."
)


class LoraKeys(TypedDict, total=False):
    """What r1nb takes over from an adapter_config.json; anything else must be at its default."""

    r: Required[PositiveInt]
    lora_alpha: float
    target_modules: list[str] | str
    exclude_modules: list[str] | None
    lora_dropout: float
    fan_in_fan_out: bool
    bias: Literal["none"]
    use_rslora: bool
    use_dora: bool
    rank_pattern: dict[str, PositiveInt]
    alpha_pattern: dict[str, float]
    layers_to_transform: list[int] | int | None
    layers_pattern: list[str] | str | None


def is_finite(model) -> bool:
    """Whether all that is trained of a model is finite: with NaN it would answer nothing."""
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad or "lora_" in name}
    return not not_finite(trained)


def load_onto(policy, folder: Path, layout: Layout | None = None):
    """The policy's model with the adapter of a folder on it, as a PeftModel.

    Raises UserError, with the base model as it was, if the adapter was made for another base, for
    another prompt format (`layout`: the one that will be used; None: the card's own), is of another rank than
    it says, is not whole, or wants anything that a LoRA does not need. A base that differs in its inner
    matrices alone, as a merged one does, is not told from the original (Policy.fingerprint).
    """
    config, named = _read_config(folder, policy.model_settings)
    shapes = _read_shapes(folder, config)
    card = read_card(folder)
    name = policy.model_settings.model_name
    if card and card["base_fingerprint"] != policy.fingerprint():
        raise UserError(
            f"The adapter in {folder.name} was made for {card['model']['model_name']}, not for {name} as "
            "loaded here; load it on its own base model."
        )
    if card.get("prompt"):
        if layout and layout.name != card["layout"]:
            raise UserError(
                f"The adapter in {folder.name} was trained with another layout than {layout.name!r}: set "
                f"layout={card['layout']!r}."
            )
        if card["prompt"] != prompt_format(policy.tokenizer, LAYOUTS[card["layout"]]):
            raise UserError(
                f"The adapter in {folder.name} was trained on prompts of another form than {name} gets here "
                "(system prompt or chat template): use the tokenizer and the r1nb that it was trained "
                "with; its README.md shows the form."
            )
    rank, limit = max([config.r, *config.rank_pattern.values()]), policy.model_settings.max_lora_rank
    if limit and rank > limit:
        raise UserError(
            f"The adapter in {folder.name} has rank {rank}: set max_lora_rank={rank}, now {limit}."
        )
    if not card and named and named != short_name(name):
        print(
            f"The adapter in {folder.name} has no card; it names {named} as its base, and {name} is loaded."
        )
    return _attach(policy, folder, config, shapes)


def _read_config(folder: Path, settings):
    """(LoraConfig, name of its base) of adapter_config.json, of vetted values alone."""
    from peft import LoraConfig

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickled = next(
                (path.name for path in folder.glob("adapter_model*") if path.suffix != ".safetensors"), ""
            )
            why = f"; {pickled} could run code when it is loaded, so r1nb never does" if pickled else ""
            raise UserError(f"{folder} holds no adapter: {name} is missing{why}.")
    try:
        raw = json.loads((folder / CONFIG).read_text())
        kind, base = raw["peft_type"], raw.get("base_model_name_or_path") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{CONFIG} in {folder.name} cannot be read: {type(error).__name__}.") from None
    if kind != "LORA":
        raise UserError(f"{CONFIG} in {folder.name} is of {kind!r}: r1nb loads LoRA adapters.")
    if base not in (settings.model_name, short_name(settings.model_name)) and not NAME.fullmatch(
        str(base) or "x"
    ):
        raise UserError(
            f"{CONFIG} in {folder.name} names the path {base!r} as its base, and {settings.model_name} is "
            "loaded: write the model's name there if you trust it."
        )
    defaults, known = LoraConfig().to_dict(), LoraKeys.__annotations__
    for key, value in raw.items():
        if key not in (*known, *OF_NO_EFFECT) and value and value != defaults.get(key):
            raise UserError(
                f"{CONFIG} in {folder.name} sets {key} = {str(value)[:60]!r}, which r1nb does not load; "
                "export it merged, with the library that made it."
            )
    try:
        chosen = TypeAdapter(LoraKeys).validate_python(
            {k: v for k, v in raw.items() if k in known}, strict=True
        )
        if isinstance(targets := chosen.get("target_modules"), str):
            re.compile(targets)
            if re.search(r"\)[*+{]", targets):  # may take for ever to match
                raise ValueError("target_modules repeats a group")
        config = LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path=settings.model_name, **chosen)
        return config, base
    except (ValueError, TypeError, re.error) as error:
        words = error.errors()[0] if isinstance(error, ValidationError) else {}
        reason = f"{words['loc'][0]}: {words['msg']}" if words else first_line(error)
        raise UserError(f"{CONFIG} in {folder.name} is not a LoRA's: {reason}.") from None


def _read_shapes(folder: Path, config) -> dict[str, tuple]:
    """{tensor: shape} of the adapter's weights: whole, finite, and of the rank that the config says."""
    try:
        weights = read_tensors(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{WEIGHTS} in {folder.name} is truncated, not finite, or no safetensors file: copy the adapter "
            f"again ({first_line(error)})."
        ) from None
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    ranks = {shape[:1] for name, shape in shapes.items() if "lora_A" in name}
    if not config.rank_pattern and ranks != {(config.r,)}:
        found = ", ".join(str(*rank) for rank in sorted(ranks)) or "none"
        raise UserError(
            f"The adapter in {folder.name} is of rank {found}, but its {CONFIG} says r = {config.r}: copy "
            "both files again, from one run."
        )
    return shapes


def _attach(policy, folder: Path, config, shapes: dict[str, tuple]):
    from peft import PeftModel, get_peft_model_state_dict

    base = policy.model
    try:
        trainable = policy.model_settings.engine == "unsloth"
        model = PeftModel.from_pretrained(base, str(folder), config=config, is_trainable=trainable)
        expected = {name: tuple(w.shape) for name, w in get_peft_model_state_dict(model).items()}
        if expected == shapes:
            return model
        missing, foreign = set(expected) - set(shapes), set(shapes) - set(expected)
        reason = f"{len(missing)} of its {len(expected)} tensors are missing, {len(foreign)} belong elsewhere"
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        reason = first_line(error)
    _strip(base)
    raise UserError(
        f"The adapter in {folder.name} does not fit {policy.model_settings.model_name}: {reason}."
    )


def _strip(model) -> None:
    """Take LoRA layers off again that PEFT has put into a model, however far it came."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            model.set_submodule(name, module.base_layer)
    if hasattr(model, "peft_config"):
        del model.peft_config
