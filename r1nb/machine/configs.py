"""The configurations that TRL takes, built from a recipe for this machine, and what TRL refuses in them."""

import contextlib
import importlib.util
import math
import netrc
import os
from pathlib import Path

from r1nb.errors import UserError, did_you_mean, first_line
from r1nb.machine.engine import compute_dtype


def grpo_config(recipe, output_dir: Path | str):
    """The trl.GRPOConfig that a recipe stands for."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(output_dir),
        reward_weights=list(recipe.rewards.values()),
        log_completions=True,
        num_completions_to_print=0,
        disable_tqdm=True,  # the run draws its own progress
        **_precision(recipe.model) | recipe.grpo,
    )


def sft_config(recipe, output_dir: Path | str):
    """The trl.SFTConfig of the section `sft`."""
    from trl import SFTConfig

    return SFTConfig(output_dir=str(output_dir), disable_tqdm=True, **_precision(recipe.model) | recipe.sft)


def _precision(model) -> dict[str, bool]:
    dtype = compute_dtype(model)
    return {"bf16": dtype == "bfloat16", "fp16": dtype == "float16"}


def check_configs(recipe) -> None:
    """Raise UserError for what TRL refuses, trackers that cannot work, and checkpoints of no use."""
    _check_trackers(recipe.grpo.get("report_to", "none"))
    try:
        config = grpo_config(recipe, "unused")
        if recipe.sft:
            sft_config(recipe, "unused")
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses the recipe: {first_line(error)}") from None
    check_saves(config)


def steps_between_saves(config) -> int:
    """Optimizer steps after which a run of a GRPOConfig can be resumed, or a multiple of them.

    Completions that serve several steps, and figures that are averaged over several, are in no checkpoint.
    """
    served = config.steps_per_generation * config.num_iterations
    served //= math.gcd(served, config.gradient_accumulation_steps)
    return math.lcm(served, int(config.logging_steps) or 1)


def check_saves(config) -> None:
    """Raise UserError for checkpoints from which a run would not go on as if it had not stopped."""
    unit, save = steps_between_saves(config), config.save_steps
    strategy = getattr(config.save_strategy, "value", config.save_strategy)
    if unit > 1 and strategy != "no" and (strategy != "steps" or save % unit):
        raise UserError(
            f"save_steps = {save:g}: a run can be resumed after every {unit} steps only, since completions "
            "or logged figures span them; make save_steps a multiple of that."
        )


def _check_trackers(report_to) -> None:
    """Raise UserError for a tracker that is unknown or not installed, and if wandb would ask for a login."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    names = {report_to} if isinstance(report_to, str) else set(report_to or ())
    for name in names - {"none"}:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                f"report_to = {name!r}{did_you_mean(name, INTEGRATION_TO_CALLBACK)} Name the trackers one by "
                "one, as report_to=trackio; none is the default."
            )
        if importlib.util.find_spec(name) is None:
            raise UserError(f"report_to = {name!r} needs its package, which is missing: pip install {name}.")
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
    if "wandb" in names and not (offline or "WANDB_API_KEY" in os.environ or _logged_in("api.wandb.ai")):
        raise UserError(
            "report_to = 'wandb' would stop to ask for a login: set WANDB_API_KEY, or WANDB_MODE=offline."
        )


def _logged_in(host: str) -> bool:
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators(host) is not None
    return False
