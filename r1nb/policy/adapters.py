"""Load adapters: PEFT safetensors with a card that names the base model; both are checked before loading.

A folder may come from somebody else, so it is treated as data, not code: nothing in it is unpickled, and
only the settings that a LoRA needs are read from its configuration.
"""

import json
import re
from pathlib import Path

from r1nb.errors import UserError, did_you_mean, first_line
from r1nb.machine.model_files import not_finite, read_tensors
from r1nb.policy.cards import Card, prompt_format, read_card, short_name
from r1nb.text.prompts import LAYOUTS, Layout

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# The keys of adapter_config.json that are used. Any other key that has an effect must have its default value.
TAKEN = ("r", "lora_alpha", "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out",
         "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform",
         "layers_pattern", "lora_bias", "modules_to_save",
         "trainable_token_indices")  # fmt: skip
OF_NO_EFFECT = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
                "revision", "inference_mode", "init_lora_weights", "megatron_core",
                "qalora_group_size", "eva_config")  # fmt: skip
# Values of init_lora_weights that leave the base model as it is. The others (pissa, olora, corda, loftq,
# lora_ga ...) take a part out of its weights, so that such an adapter does not belong on the whole base.
KEEP_THE_BASE = ("none", "true", "false", "gaussian", "eva", "orthogonal", "mica")
MATRIX_A = re.compile("lora_(embedding_)?A")
AT_0 = re.compile("lora_(B|embedding_A)")
NOT_FINITE = (
    "The trained weights are not finite, so the policy is neither evaluated nor saved: go back to the last "
    "checkpoint in the run folder, or train again with a lower learning_rate."
)


def is_finite(model) -> bool:
    """Whether all trained weights of a model are finite: a model with NaN cannot answer."""
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad or "lora_" in name}
    return not not_finite(trained)


def starting_at_0(model) -> list:
    """The matrices of an adapter that are 0 before training: B, but A for an embedding."""
    return [weights for name, weights in model.named_parameters() if AT_0.search(name)]


def check_targets(model, recipe) -> None:
    """Raise UserError if a name in target_modules matches no module, or one that cannot be trained here.

    PEFT itself needs only one match overall. Whether PEFT can put LoRA on the modules is tried out.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    kinds = (Linear, Conv1D)
    known = {name.rpartition(".")[2] for name, each in model.named_modules() if isinstance(each, kinds)}
    if recipe.lora is None:
        return
    if recipe.lora.target_modules != "all-linear":
        _check_names(model, recipe, known)
    if recipe.model.engine != "unsloth":
        _try_targets(model, recipe.lora.target_modules, known)


def _try_targets(model, wanted, known: set[str]) -> None:
    """Raise UserError if PEFT cannot put LoRA on target_modules, or not in a way that r1nb can load again."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=wanted, task_type="CAUSAL_LM")
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        with torch.device("meta"):  # takes no memory and no random numbers
            get_peft_model(model, config, low_cpu_mem_usage=True)
    except Exception as error:  # PEFT checks few values before it uses them
        why = f"PEFT cannot put LoRA on these modules ({first_line(error)})"
        raise UserError(f"target_modules = {wanted!r}: {why}; use {', '.join(sorted(known))}.") from None
    finally:
        strip(model)
        for weight in trained:  # PEFT froze them
            weight.requires_grad_(True)
    if config.target_parameters:
        raise UserError(
            f"target_modules = {wanted!r} includes the experts of this model, but r1nb cannot load an "
            f"adapter of experts: name only attention modules, for example {sorted(config.target_modules)}."
        )


def _check_names(model, recipe, known: set[str]) -> None:
    wanted = recipe.lora.target_modules
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    why = ""
    if recipe.model.engine == "unsloth":
        why = "Unsloth trains all its weights, without LoRA"
    elif recipe.grpo.get("use_vllm") and tied:
        why = "it shares its weights with another layer, so that vLLM would sample from another model"
    modules = dict(model.named_modules())
    for want in [wanted] if isinstance(wanted, str) else wanted:
        pattern = want if isinstance(wanted, str) else rf"(?:.*\.)?{re.escape(want)}"
        try:
            matched = [name for name in modules if re.fullmatch(pattern, name)]
        except re.error as error:
            why = f"is not a valid regular expression ({error})"
            raise UserError(f"target_modules = {wanted!r} {why}: correct it.") from None
        if why and (name := next((name for name in matched if modules[name] in (head, embedding)), "")):
            raise UserError(f"target_modules = {wanted!r} includes {name}, but {why}: leave it out.")
        if not matched:
            raise UserError(
                f"target_modules = {wanted!r}: the model has no {want!r}{did_you_mean(want, known)} It has "
                f"{', '.join(sorted(known))}; all-linear selects all of them."
            )


def load_onto(policy, folder: Path, layout: Layout | None = None):
    """Load an adapter onto the policy's model in place of the one that is there; returns a PeftModel.

    `layout` is the layout that will be used; None takes the one on the card. Raises UserError, and leaves the
    policy unchanged, if the adapter was trained on another base model or with another prompt format, has
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
    base, put_back = _take_off(policy.model)
    try:
        return _attach(base, config, tensors, trainable=settings.engine == "unsloth")
    except Exception as error:  # PEFT checks few values before it uses them
        put_back()
        why = f"does not fit {name}, or its {CONFIG} is damaged: {first_line(error)}"
        why = str(error) if isinstance(error, UserError) else why
        raise UserError(f"The adapter in {folder.name} {why}.") from None


def _read_config(folder: Path, model_name: str):
    """(LoraConfig, name of the base model) from adapter_config.json; only harmless keys are used."""
    from peft import LoraConfig

    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        pickled = [path.name for path in folder.glob("adapter_model*") if path.suffix != ".safetensors"]
        why = f"; {pickled[0]} could run code when loaded, so r1nb never loads it" if pickled else ""
        raise UserError(f"{folder} holds no adapter: {missing[0]} is missing{why}.")
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"), parse_constant=int)  # refuses NaN
        kind, base = raw["peft_type"], raw.get("base_model_name_or_path") or ""
        taken = {"r": raw["r"]} | {key: value for key, value in raw.items() if key in TAKEN}
        config = LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path=model_name, **taken)
    except Exception as error:  # the file may contain anything
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{CONFIG} in {folder.name} cannot be read ({why}).") from None
    if kind != "LORA":
        raise UserError(f"{CONFIG} in {folder.name} has peft_type {kind!r}: r1nb loads only LoRA adapters.")
    begun = raw.get("init_lora_weights")
    if str(begun).lower() not in KEEP_THE_BASE:
        raise UserError(
            f"{CONFIG} in {folder.name} has init_lora_weights = {str(begun)[:60]!r}, which changed the base "
            "model: where it was trained, save it again with PEFT's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...), or merge it, and load the result."
        )
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
    ranks = sorted({shape[0] for tensor, shape in shapes.items() if shape and MATRIX_A.search(tensor)})
    if not config.rank_pattern and ranks != [config.r]:
        found = ", ".join(map(str, ranks)) or "none"
        return f"has rank {found}, but its {CONFIG} says r = {config.r!r}: copy both again, from the same run"
    if limit and (rank := max(ranks, default=0)) > limit:
        return f"has rank {rank}: set max_lora_rank={rank}, now {limit}"
    if policy.model_settings.fast_inference and (config.modules_to_save or config.trainable_token_indices):
        return "holds more than LoRA, which vLLM does not load: set fast_inference=False and use_vllm=False"
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


def _attach(base, config, tensors: dict, trainable: bool):
    """Put LoRA on the base model, and `tensors` into it; returns a PeftModel.

    PEFT also stores weights of the base model if lm_head or an embedding has an adapter, or if told to. They
    are not loaded, but raise UserError if they differ from those of `base`.
    """
    from peft import PeftModelForCausalLM, get_peft_model_state_dict, set_peft_model_state_dict

    config.inference_mode = not trainable
    ours = base.state_dict()
    model = PeftModelForCausalLM(base, config)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    foreign = tensors.keys() - own.keys()
    for name in sorted(foreign):
        place = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if place in ours:
            _compare_base(place, ours[place], tensors[name])
            foreign.remove(name)
    lost = [name for name in own if name not in tensors or own[name].shape != tensors[name].shape]
    if lost or foreign:
        raise ValueError(f"{len(lost)} of its {len(own)} tensors are missing, {len(foreign)} unexpected")
    set_peft_model_state_dict(model, {name: tensors[name] for name in own})
    return model if trainable else model.eval()


def _compare_base(name: str, ours, theirs) -> None:
    """Raise UserError if a weight of the base model differs from the adapter's copy by more than rounding."""
    if ours.shape != theirs.shape or not ours.cpu().float().allclose(theirs.float(), rtol=0.005, atol=1e-6):
        raise UserError(
            f"was trained on a base model whose {name} differs from the one loaded here; load the "
            "adapter onto that base model, or merge it there and load the merged model"
        )


def strip(model):
    """The base model without the layers that PEFT has put into it, even if PEFT failed halfway."""
    return _take_off(model)[0]


def _take_off(model) -> tuple:
    """(the base model without the layers that PEFT has put into it, a function that puts them back).

    PEFT's unload would leave the trained copies of modules_to_save in the base model.
    """
    from torch.nn import Module

    base, taken = model.get_base_model() if hasattr(model, "get_base_model") else model, []
    config = vars(base).pop("peft_config", None)
    for name, module in reversed(list(base.named_modules())):  # first the inner ones
        places = (getattr(module, key, None) for key in ("base_layer", "original_module", "token_adapter"))
        if original := next((place for place in places if isinstance(place, Module)), None):
            base.set_submodule(name, original)
            taken.append((name, module))

    def put_back() -> None:
        _take_off(base)
        for name, module in reversed(taken):
            base.set_submodule(name, module)
        if config:
            base.peft_config = config

    return base, put_back
