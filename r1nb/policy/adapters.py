"""Adapters on disk: PEFT safetensors with a card of what they belong to; checked before they are loaded.

A folder that came from elsewhere is data, not code: nothing in it is unpickled, and of its configuration
only what a LoRA needs is taken over.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Required

from pydantic import PositiveInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from r1nb.errors import UserError, first_line
from r1nb.paths import write_json
from r1nb.text.prompts import LAYOUTS, build_messages
from r1nb.machine.model_files import licence

CARD = "r1nb.json"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = re.compile(r"(?!.*\.\.)[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a model on the Hub, or one that ships
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


def not_finite(weights: dict) -> str:
    """The name of the first of {name: tensor} that holds NaN or infinity; "" if none does."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), "")


def prompt_format(tokenizer, layout: str) -> str:
    """How this policy is asked: the prompt of a question called {question}, on a day called {date}."""
    messages = build_messages("{question}", layout)
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, strftime_now=lambda form: "{date}"
    )


def write_cards(folder: Path, policy, recipe=None, run=None) -> None:
    """r1nb.json, by which load_adapter judges, and README.md, the Hub's model card, of what was trained."""
    from r1nb import __version__

    name = policy.settings.model_name
    layout = recipe.data.layout if recipe else "reasoning"
    card = {
        "model": vars(policy.settings),
        "base_fingerprint": policy.fingerprint(),
        "base_licence": licence(name),
        "layout": layout,
        "prompt": prompt_format(policy.tokenizer, layout),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "r1nb": __version__,
    }
    if recipe:
        card |= {"recipe": {k: v for k, v in recipe.to_dict().items() if k != "output"}}
    if run:
        card |= {"data": run.environment.get("data"), "accuracy": _accuracy(run)}
    _write_readme(folder / "README.md", card)
    write_json(folder / CARD, card)  # last: with it the adapter is whole


def _accuracy(run) -> dict:
    keys = ("n", "strict", "strict_interval", "lenient", "format")
    return {
        split: {stage: {key: summary[key] for key in keys} for stage, summary in stages.items()}
        for split, stages in run.evaluation().items()
    }


def _write_readme(path: Path, card: dict) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    name, recipe = card["model"]["model_name"], card.get("recipe")
    known = card["base_licence"] if card["base_licence"] != "unknown" else None
    what, library, lora = "A LoRA adapter for", "peft", ["lora"]
    if recipe and recipe["lora"] is None:
        what, library, lora = "All weights trained of", "transformers", []
    data = ModelCardData(
        base_model=name if NAME.fullmatch(name) else None, library_name=library, license=known,
        datasets=[recipe["data"]["dataset"]] if recipe and "/" in recipe["data"]["dataset"][1:] else None,
        tags=[*lora, "grpo", "trl", "r1nb"],
    )  # fmt: skip
    text = f"# {what} {Path(name).name}\n\n"
    text += f"Trained with GRPO by r1nb {card['r1nb']}, {card['date']}.\n"
    if recipe:
        text += f"\nRecipe `{recipe['name']}`, dataset `{Path(recipe['data']['dataset']).name}`, seed "
        text += f"{recipe['grpo']['seed']}; all settings stand in r1nb.json.\n"
    for split, stages in (card.get("accuracy") or {}).items():
        for stage, s in stages.items():
            if s["strict"] is not None:
                low, high = s["strict_interval"]
                text += f"\n- {split}, {s['n']} problems, {stage}: {s['strict']:.1%} strict "
                text += f"[{low:.1%}, {high:.1%}], format {s['format']:.1%}"
    text += f"\n\nThe base's licence ({card['base_licence']}) holds for this too. It answers prompts of "
    text += f"this form:\n\n```\n{card['prompt']}\n```\n"
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(path)


def read_card(folder: Path) -> dict:
    """r1nb.json of an adapter's folder, {} without one; its model settings are checked."""
    from r1nb.recipes.settings import ModelSettings

    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text())
        settings = TypeAdapter(ModelSettings).validate_python(card["model"])
        if not isinstance(card["base_fingerprint"], str) or card.get("layout", "reasoning") not in LAYOUTS:
            raise ValueError("fingerprint or layout")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{CARD} in {folder.name} is damaged ({type(error).__name__}): take it away to load the adapter "
            "unchecked."
        ) from None
    return {"layout": "reasoning"} | card | {"model": vars(settings)}


def load_onto(policy, folder: Path, layout: str | None = None):
    """The policy's model with the adapter of a folder on it, as a PeftModel.

    Raises UserError, with the base model as it was, if the adapter was made for another base, for
    another prompt format (`layout`: the one that will be used; None: the card's own), is of another rank than
    it says, is not whole, or wants anything that a LoRA does not need. A base that differs in its inner
    matrices alone, as a merged one does, is not told from the original (Policy.fingerprint).
    """
    config, named = _read_config(folder, policy.settings)
    shapes = _read_shapes(folder, config)
    card = read_card(folder)
    name = policy.settings.model_name
    if card and card["base_fingerprint"] != policy.fingerprint():
        raise UserError(
            f"The adapter in {folder.name} was made for {card['model']['model_name']}, not for {name} as "
            "loaded here; load it on its own base model."
        )
    if card.get("prompt"):
        if layout and layout != card["layout"]:
            raise UserError(
                f"The adapter in {folder.name} was trained with another layout than {layout!r}: set "
                f"layout={card['layout']!r}."
            )
        if card["prompt"] != prompt_format(policy.tokenizer, card["layout"]):
            raise UserError(
                f"The adapter in {folder.name} was trained on prompts of another form than {name} gets here "
                "(system prompt or chat template): use the tokenizer and the r1nb that it was trained "
                "with; its README.md shows the form."
            )
    rank, limit = max([config.r, *config.rank_pattern.values()]), policy.settings.max_lora_rank
    if limit and rank > limit:
        raise UserError(
            f"The adapter in {folder.name} has rank {rank}: set max_lora_rank={rank}, now {limit}."
        )
    if not card and named and named != short_base(name):
        print(
            f"The adapter in {folder.name} has no card; it names {named} as its base, and {name} is loaded."
        )
    return _attach(policy, folder, config, shapes)


def short_base(name: str) -> str:
    """The base as an adapter names it: of a folder the last part, for paths differ between machines."""
    return Path(name).name if Path(name).is_dir() else name


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
    if base not in (settings.model_name, short_base(settings.model_name)) and not NAME.fullmatch(
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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / WEIGHTS)
        if spoilt := not_finite(weights):
            raise ValueError(f"{spoilt} is not finite")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
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
        trainable = policy.settings.engine == "unsloth"
        model = PeftModel.from_pretrained(base, str(folder), config=config, is_trainable=trainable)
        expected = {name: tuple(w.shape) for name, w in get_peft_model_state_dict(model).items()}
        if expected == shapes:
            return model
        missing, foreign = set(expected) - set(shapes), set(shapes) - set(expected)
        fault = f"{len(missing)} of its {len(expected)} tensors are missing, {len(foreign)} belong elsewhere"
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        fault = first_line(error)
    _strip(base)
    raise UserError(f"The adapter in {folder.name} does not fit {policy.settings.model_name}: {fault}.")


def _strip(model) -> None:
    """Take LoRA layers off again that PEFT has put into a model, however far it came."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            model.set_submodule(name, module.base_layer)
    if hasattr(model, "peft_config"):
        del model.peft_config
