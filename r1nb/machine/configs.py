"""TRL's configurations for a recipe on this machine, and a check of what TRL would refuse later."""

import contextlib
import importlib.util
import math
import netrc
import os
from pathlib import Path

from r1nb.errors import UserError, first_line
from r1nb.machine.engine import compute_dtype, needs_bitsandbytes


def grpo_config(recipe, output_dir: Path | str):
    """The trl.GRPOConfig of a recipe."""
    from trl import GRPOConfig

    return GRPOConfig(output_dir=str(output_dir), **grpo_arguments(recipe))


def grpo_arguments(recipe) -> dict:
    """The arguments of trl.GRPOConfig for a recipe on this machine, without output_dir."""
    return {
        "reward_weights": list(recipe.rewards.values()),
        "log_completions": True,
        "num_completions_to_print": 0,
        "disable_tqdm": True,  # r1nb shows its own progress
        **_precision(recipe.model, recipe.grpo) | recipe.grpo,
    }


def sft_config(recipe, output_dir: Path | str):
    """The trl.SFTConfig of the section `sft`."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(output_dir), disable_tqdm=True, **_precision(recipe.model, recipe.sft) | recipe.sft
    )


def _precision(model, section: dict) -> dict[str, bool]:
    import torch

    dtype, here = compute_dtype(model), torch.cuda.is_available() or section.get("use_cpu")
    return {"bf16": bool(dtype == "bfloat16" and here), "fp16": dtype == "float16"}


# What TRL, transformers, accelerate and PyTorch raise for a setting that they refuse.
REFUSALS = (TypeError, ValueError, OSError, ImportError, AttributeError, LookupError, RuntimeError)


def check_configs(recipe) -> None:
    """Raise UserError if TRL refuses the recipe, a tracker cannot work, or checkpoints would be useless."""
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    try:
        configs = [grpo_config(recipe, "unused")]
        configs += [sft_config(recipe, "unused")] if recipe.sft else []
        for config in configs:
            get_reporting_integration_callbacks(config.report_to)  # refuses unknown ones
        # The plan of a recipe for a GPU is shown without bitsandbytes, too; see engine.fall_back.
        elsewhere = not recipe.grpo.get("use_cpu") and importlib.util.find_spec("bitsandbytes") is None
        for config, section in zip(configs, (recipe.grpo, recipe.sft), strict=False):
            if not (elsewhere and needs_bitsandbytes(section)):
                _try_out(config)
        if recipe.model.engine != "unsloth" and configs[0].use_vllm and not importlib.util.find_spec("vllm"):
            raise ValueError("use_vllm=True needs vLLM, which is not installed here.")
    except REFUSALS as error:
        raise UserError(f"TRL refuses the recipe: {first_line(error)}") from None
    _check_trackers({tracker for config in configs for tracker in config.report_to})
    check_saves(configs[0])


def check_model(model, recipe) -> None:
    """Raise UserError for a setting of `grpo` that TRL's trainer would refuse, much later, for this model."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    if (rate := recipe.grpo.get("router_aux_loss_coef")) and not hasattr(config, "output_router_logits"):
        why = "this model is not a mixture of experts, so it has no router"
        raise UserError(f"router_aux_loss_coef = {rate!r}: {why}; leave it out.")
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    if recipe.grpo.get("cast_lm_head_to_fp32") and recipe.lora and tied:
        why = "TRL cannot combine it with LoRA here, since lm_head shares its weights with the embedding"
        raise UserError(f"cast_lm_head_to_fp32=True: {why}; leave it out.")


def _try_out(config) -> None:
    """Make for one weight what Trainer makes only with the model at hand; it raises what Trainer would."""
    import torch
    from transformers import GenerationConfig, Trainer, get_scheduler

    kind, options = Trainer.get_optimizer_cls_and_kwargs(config)
    optimizer = kind([torch.nn.Parameter(torch.zeros(2, 2))], **options)
    steps, schedule = config.max_steps, config.lr_scheduler_kwargs
    warmup = config.get_warmup_steps(steps)
    get_scheduler(config.lr_scheduler_type, optimizer, warmup, steps, scheduler_specific_kwargs=schedule)
    given = getattr(config, "generation_kwargs", None) or {}
    own = {"max_new_tokens", "max_length", "num_return_sequences", "num_beams", "do_sample", "stop_strings"}
    if wrong := [key for key in given if key in own or not hasattr(GenerationConfig(), key)]:
        raise ValueError(f"generation_kwargs: {wrong[0]} is set by TRL, or unknown to generate; take it out.")
    if twice := [key for key in given if hasattr(config, key)]:
        raise ValueError(f"generation_kwargs: {twice[0]} is a key of the section grpo; set it there.")
    cache = getattr(config, "cache_implementation", None)
    GenerationConfig(do_sample=True, cache_implementation=cache, **given).validate(strict=True)


def steps_between_saves(config) -> int:
    """The number of optimizer steps at whose multiples a run of a GRPOConfig can be resumed.

    A checkpoint does not hold completions that are used in several steps, nor logged figures that are
    averaged over several steps, so it must be saved between them.
    """
    served = config.steps_per_generation * config.num_iterations
    served //= math.gcd(served, config.gradient_accumulation_steps)
    logged = config.logging_steps if config.logging_strategy == "steps" else 1
    logged = math.ceil(config.max_steps * logged) if logged < 1 else int(logged)  # below 1: a share of steps
    return math.lcm(served, logged)


def check_saves(config) -> None:
    """Raise UserError if a run resumed from a checkpoint would not continue exactly where it stopped."""
    unit, save = steps_between_saves(config), config.save_steps
    if unit > 1 and config.save_strategy != "no" and (config.save_strategy != "steps" or save % unit):
        why = f"a run can be resumed after every {unit} steps only"
        raise UserError(f"save_steps = {save:g}: {why}; set a multiple of {unit} and save_strategy=steps.")


def _check_trackers(names: set[str]) -> None:
    """Raise UserError if a tracker is not installed, or if wandb would ask for a login."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"report_to = {name!r} needs its package, which is missing: pip install {name}.")
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
    if "wandb" in names and not (offline or "WANDB_API_KEY" in os.environ or _logged_in("api.wandb.ai")):
        raise UserError("report_to = 'wandb' would ask for a login: set WANDB_API_KEY or WANDB_MODE=offline.")


def _logged_in(host: str) -> bool:
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators(host) is not None
    return False
