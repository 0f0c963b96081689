"""Which values of a recipe cannot be, alone or together."""

import contextlib
import importlib.util
import math
import netrc
import os
import tempfile
from pathlib import Path

from r1nb.errors import UserError, did_you_mean, first_line
from r1nb.recipes.settings import AT_LEAST, CHOICES, RESERVED


def check_recipe(recipe) -> None:
    """Raise UserError for values that are out of range, or cannot go together."""
    from r1nb.rewards import REWARDS

    grpo, group = recipe.grpo, recipe.group_size
    for key in ("max_steps", "per_device_train_batch_size", "max_completion_length", "seed"):
        if key not in grpo:
            raise UserError(f"The recipe's section 'grpo' lacks {key}; see recipes/tiny-cpu.yaml.")
    for name, section in (("grpo", grpo), ("sft", recipe.sft)):
        if ours := sorted(set(section) & RESERVED):
            raise UserError(f"{name}.{ours[0]} is set by r1nb itself; take it out of the recipe.")
        for key, least in AT_LEAST.items():
            if ((value := section.get(key, least)) or 0) < least:  # YAML's null is 0
                raise UserError(f"{key} = {value}: must be at least {least}.")
    if not recipe.data.test_splits:
        raise UserError("test_splits is empty: name at least one split to measure accuracy on.")
    for key, known in CHOICES.items():
        if (value := str(grpo.get(key, known[0]))) not in known:
            raise UserError(f"{key} = {value!r}{did_you_mean(value, known)} TRL has {', '.join(known)}.")
    if (value := grpo.get("temperature", 1.0)) <= 0:
        raise UserError(f"temperature = {value}: must be above 0, since a group is sampled.")
    if recipe.lora and not 0 <= recipe.lora.lora_dropout < 1:
        raise UserError(f"lora_dropout = {recipe.lora.lora_dropout}: a share from 0 to below 1.")
    if recipe.sft and "max_steps" not in recipe.sft:
        raise UserError("The recipe's section 'sft' lacks max_steps; see recipes/tiny-r1.yaml.")
    if group < 2:
        raise UserError(
            f"num_generations = {group}: a group needs at least 2 completions, since the advantage "
            "compares them."
        )
    if (batch := recipe.batch_size) % group:
        raise UserError(
            f"num_generations = {group} does not divide the batch of {batch} completions "
            "(per_device_train_batch_size x gradient_accumulation_steps); make the batch "
            f"{max(1, batch // group) * group} or {(batch // group + 1) * group}."
        )
    for name, weight in recipe.rewards.items():
        if name not in REWARDS:
            raise UserError(
                f"Unknown reward {name!r}{did_you_mean(name, REWARDS)} One of your own is defined with "
                "@reward before the recipe is read."
            )
        library = REWARDS[name].library
        if library and importlib.util.find_spec(library) is None:
            raise UserError(f"{name} needs {library}, which is missing: pip install 'r1nb[rewards,gym]'.")
        if not 0 <= weight < float("inf"):
            raise UserError(f"rewards.{name} = {weight}: a weight is a number of at least 0.")
    if "judge_reward_func" in recipe.rewards and not (
        recipe.scoring.judge_url and recipe.scoring.judge_model
    ):
        raise UserError("judge_reward_func needs judge_url and judge_model: an OpenAI-compatible endpoint.")
    if (recipe.scoring.overlong_cache or 0) > grpo["max_completion_length"]:
        raise UserError(
            f"overlong_cache = {recipe.scoring.overlong_cache} is more than max_completion_length = "
            f"{grpo['max_completion_length']}; lower it."
        )
    if "language_reward_func" in recipe.rewards:
        recipe.scorer("language_reward_func").score("")  # refuses an unknown language
    if not any(recipe.rewards.values()):
        raise UserError("rewards: give at least one reward a weight above 0.")
    _check_trackers(grpo.get("report_to", "none"))
    for section in (recipe.evaluation, recipe.lora, recipe.data, recipe.model, recipe.scoring):
        for key, value in vars(section).items() if section else ():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise UserError(f"{key} = {value}: must be at least 1.")
    if recipe.lora is None and (recipe.model.engine == "unsloth" or recipe.model.load_in_4bit):
        raise UserError(
            "lora: null trains all weights, which takes engine=transformers and load_in_4bit=false: set "
            "both, or give the recipe an adapter."
        )
    for key in ("min_pass_rate", "max_pass_rate"):
        if not 0 <= (rate := getattr(recipe.data, key) or 0) <= 1:
            raise UserError(f"{key} = {rate}: a pass rate is between 0 and 1.")
    low, high = recipe.data.min_pass_rate, recipe.data.max_pass_rate
    if None not in (low, high) and low > high:
        raise UserError(f"min_pass_rate = {low} is above max_pass_rate = {high}; exchange the two.")
    room = recipe.data.max_prompt_length + grpo["max_completion_length"]
    if room > recipe.model.max_seq_length:
        raise UserError(
            f"max_prompt_length + max_completion_length = {room} tokens, more than max_seq_length = "
            f"{recipe.model.max_seq_length}; raise it or lower one of the two."
        )
    train = recipe.data.train_split
    if train in recipe.data.test_splits or train.startswith("test"):
        raise UserError(
            f"train_split = {train!r} is a test split: never train on it. Set train_split='train', and where "
            "there is no other split, test_splits='train[-100:]'."
        )
    if recipe.model.engine != "unsloth":  # whose settings only its own GPU machine can judge
        try:
            config = recipe.grpo_config("unused")
            if recipe.sft:
                recipe.sft_config("unused")
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


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be made in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"runs_dir = {str(folder)!r} cannot be written ({error.strerror}); set runs_dir to a "
            "folder of yours."
        ) from None
