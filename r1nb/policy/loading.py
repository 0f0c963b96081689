"""From a recipe or a folder to a policy.

Two engines: transformers + PEFT anywhere, Unsloth (with vLLM for generation) on a CUDA GPU.
"""

import importlib.util
import os
import re
from pathlib import Path

from r1nb.errors import UserError, did_you_mean, first_line
from r1nb.machine.engine import compute_dtype, fall_back, prepare_unsloth, require_unsloth
from r1nb.machine.model_files import cannot_load, load_config, locate
from r1nb.machine.out_of_memory import is_out_of_memory, out_of_memory_in_words, remedy_for
from r1nb.policy.cards import Card, read_card, short_name
from r1nb.policy.policy import Policy
from r1nb.processes import processes
from r1nb.recipes.loading import default_runs_dir, load_recipe
from r1nb.recipes.recipe import build_recipe
from r1nb.rewards.registry import reward_names
from r1nb.runs.run import Run
from r1nb.text.prompts import ensure_chat_template

LONGEST = 4096  # tokens of prompt and completion for a model that comes without a recipe
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
NEUTRAL = {"xmlcount_reward_func": 1.0}  # judges no answer: the reward that suits the dataset then does


def load_policy(recipe, say=print) -> Policy:
    """The base model of a recipe; says the very call that loads it."""
    base = recipe.model
    if recipe.lora and recipe.lora.start_from:  # raises before the base is loaded, if that run is missing
        Run.named(recipe.lora.start_from, recipe.output.runs_dir)
    prepare_unsloth(base)
    load = _load_unsloth if base.engine == "unsloth" else _load_plain
    with out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        try:
            model, tokenizer = load(recipe, say)
        except OSError as error:
            raise UserError(cannot_load(base.model_name, error)) from None
    ensure_chat_template(tokenizer)
    if recipe.lora:
        _check_targets(model, recipe.lora.target_modules)
    return Policy(model, tokenizer, base)


def _check_targets(model, wanted: str | list[str]) -> None:
    """Raise UserError if the adapter would miss a module that it names: PEFT asks for one match in all."""
    from torch.nn import Linear

    if wanted == "all-linear":
        return
    modules = dict(model.named_modules())
    for want in [wanted] if isinstance(wanted, str) else wanted:
        pattern = want if isinstance(wanted, str) else rf"(?:.*\.)?{re.escape(want)}"
        if not any(re.fullmatch(pattern, name) for name in modules):
            known = {name.rpartition(".")[2] for name, m in modules.items() if isinstance(m, Linear)}
            raise UserError(
                f"target_modules = {wanted!r}: the model has no {want!r}{did_you_mean(want, known)} It has "
                f"{', '.join(sorted(known))}; all-linear takes them all."
            )


def _load_plain(recipe, say) -> tuple:
    base = recipe.model
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    if base.torch_threads:
        cores = (os.cpu_count() or 1) // processes()
        torch.set_num_threads(max(1, min(base.torch_threads, cores)))
    torch.manual_seed(recipe.grpo["seed"])
    path, options = locate(base.model_name)
    if os.path.isdir(path):
        logging.disable_progress_bar()  # of reading weights; a download shows how far it is
    dtype = compute_dtype(base)
    say(f"AutoModelForCausalLM.from_pretrained({short_name(base.model_name)!r}, dtype={dtype!r})")
    if torch.cuda.is_available() and not recipe.grpo.get("use_cpu"):
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", 0))}
    if base.load_in_4bit:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError("load_in_4bit=True needs bitsandbytes: pip install bitsandbytes==0.50.2.")
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(path, gguf_file=options.get("gguf_file"))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
    keep_gradients(model)
    if "gguf_file" in options:  # the weights are plain now; say so, or they cannot be saved
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def attach_lora(policy: Policy, recipe) -> None:
    """Put a fresh adapter on the base model (B = 0, so that it answers as before), or the one to start from.

    A recipe without one (`lora: null`) has all weights trained.

    Seeded: the same recipe starts from the same adapter. Raises UserError if the adapter of the recipe's
    `start_from` is missing, does not belong on this base, or is of another rank.
    """
    from transformers import set_seed

    seed = recipe.grpo["seed"]
    set_seed(seed)
    if policy.has_adapter:  # of a notebook's cells that are run again
        if recipe.model.engine == "unsloth":
            raise UserError("This policy carries an adapter already: run the notebook from the top.")
        policy.model = policy.model.unload()
    if recipe.lora is None:
        policy.model.requires_grad_(True)
    elif recipe.lora.start_from:
        _continue_adapter(policy, recipe)
    elif recipe.model.engine == "unsloth":
        from unsloth import FastLanguageModel

        arguments = recipe.lora.model_dump(exclude={"start_from"})
        policy.model = FastLanguageModel.get_peft_model(policy.model, random_state=seed, **arguments)
    else:
        from peft import LoraConfig, get_peft_model

        arguments = recipe.lora.model_dump(exclude={"start_from", "use_gradient_checkpointing"})
        policy.model = get_peft_model(policy.model, LoraConfig(task_type="CAUSAL_LM", **arguments))


def _continue_adapter(policy: Policy, recipe) -> None:
    """Put a finished run's adapter on the base model, to be trained on."""
    parent = Run.named(recipe.lora.start_from, recipe.output.runs_dir)
    policy.load_adapter(parent.adapter, recipe.layout)
    rank = policy.model.peft_config["default"].r
    if rank != recipe.lora.r:
        raise UserError(f"The adapter of {parent.name} has rank {rank}, not {recipe.lora.r}: set r={rank}.")
    policy.model.set_adapter("default")  # PEFT: the active adapter is the one that is trained


def load_trained(folder: Path | str | None = None):
    """(policy, recipe, folder) from a run folder, an adapter folder or a whole model's folder.

    None takes the newest finished run. The recipe is the run's; outside a run it is the one on the adapter's
    card, and without a card `tiny-cpu` with the folder's model.
    """
    if folder is None:
        run = Run.latest(default_runs_dir())
        if run is None:
            raise UserError("There is no finished run yet: run notebook 03 or `make train` first.")
        folder = run.folder
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give an adapter, a run or a merged model's folder.")
    trained = Run(folder).trained if (folder / "recipe.yaml").is_file() else folder
    is_adapter = (trained / "adapter_config.json").is_file()
    if not is_adapter and not (trained / "config.json").is_file():
        raise UserError(f"{folder} holds neither adapter_config.json nor config.json: no adapter, no model.")
    recipe = _recipe_of(trained, is_adapter)
    prepare_unsloth(recipe.model)
    import torch

    if torch.cuda.is_available():
        recipe.grpo.pop("use_cpu", None)
        recipe = fall_back(recipe)
    policy = load_policy(recipe)
    if is_adapter:
        policy.load_adapter(trained, recipe.layout)
    return policy, recipe, trained


def _recipe_of(trained: Path, is_adapter: bool):
    """The recipe of an adapter's or a model's folder: its run's, its card's, or else tiny-cpu."""
    in_run = (trained.parent / "recipe.yaml").is_file()
    card = None if in_run else read_card(trained)
    recipe = load_recipe(trained.parent) if in_run else _recipe_on_card(card, trained.name)
    changes = dict(card.model) if card else {}
    if not is_adapter:  # plain weights, in their own precision
        changes |= {"model_name": str(trained), "load_in_4bit": False, "dtype": None}
        if not in_run and not card:
            changes["max_seq_length"] = min(LONGEST, load_config(str(trained)).max_position_embeddings)
    changed = {"model": recipe.model.model_copy(update=changes)}
    if card:
        changed["data"] = recipe.data.model_copy(update={"layout": card.layout})
    if recipe.lora:  # what it was trained from is in it
        changed["lora"] = recipe.lora.model_copy(update={"start_from": None})
    return recipe.model_copy(update=changed)


def _recipe_on_card(card: Card | None, name: str):
    """The recipe on the card of what lies outside its run; tiny-cpu where there is none.

    Rewards that only the run's notebook knew are left out; a recipe of another r1nb may be refused.
    """
    default, said = load_recipe(), f"The recipe on the card of {name}"
    if not card or not card.recipe:
        return default
    raw, rewards = card.recipe, card.recipe.get("rewards")
    if isinstance(rewards, dict):
        kept = {reward: weight for reward, weight in rewards.items() if reward in reward_names()}
        raw = raw | {"rewards": kept if any(kept.values()) else NEUTRAL}
        if unknown := ", ".join(rewards.keys() - kept.keys()):
            print(f"{said} has rewards that are unknown here and left out: {unknown}.")
    try:
        return build_recipe(raw)
    except UserError as error:
        print(f"{said} is refused: {error} Instead: the values of {default.name}, except model and layout.")
        return default


def keep_gradients(model) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for AVX512-BF16.

    On such CPUs one answer in eval mode does that, and every later gradient of the adapter is 0, silently.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _load_unsloth(recipe, say) -> tuple:
    base = recipe.model
    require_unsloth(base)
    try:
        from unsloth import FastLanguageModel
    except (ImportError, NotImplementedError, OSError) as error:
        why = f"needs Unsloth, which cannot be imported here ({first_line(error)})"
        raise UserError(f"Recipe {recipe.name} {why}; install r1nb[gpu] on a CUDA machine.") from None
    import torch

    path, _ = locate(base.model_name)
    dtype = compute_dtype(base)
    arguments = {
        "max_seq_length": base.max_seq_length,
        "load_in_4bit": base.load_in_4bit,
        "fast_inference": base.fast_inference,
        "max_lora_rank": base.max_lora_rank or recipe.lora.r,
        "random_state": recipe.grpo["seed"],
        "use_gradient_checkpointing": recipe.lora.use_gradient_checkpointing or False,
        "use_exact_model_name": True,  # or Unsloth loads a mirror of its own choice
    }
    if base.fast_inference:
        arguments["gpu_memory_utilization"] = base.gpu_memory_utilization
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    say(f"FastLanguageModel.from_pretrained({short_name(base.model_name)!r}, dtype=torch.{dtype}, {written})")
    try:
        return FastLanguageModel.from_pretrained(path, dtype=getattr(torch, dtype), **arguments)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if not base.fast_inference or is_out_of_memory(error):
            raise
        raise UserError(
            f"vLLM could not start ({str(error).splitlines()[0]}): OVERRIDES = {{'fast_inference': False, "
            "'use_vllm': False}} does without it, at several times the time a step; restart the kernel first."
        ) from error
