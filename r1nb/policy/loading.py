"""Load a policy from a recipe or from a folder.

There are two engines: transformers + PEFT anywhere, and Unsloth (with vLLM for generation) on a CUDA GPU.
"""

import importlib.util
import os
from pathlib import Path

from r1nb.errors import UserError, first_line, say_once
from r1nb.machine.configs import check_model
from r1nb.machine.engine import compute_dtype, fall_back, prepare_unsloth, require_unsloth
from r1nb.machine.model_files import cannot_load, load_config, locate
from r1nb.machine.out_of_memory import is_out_of_memory, out_of_memory_in_words, remedy_for
from r1nb.policy.adapters import check_targets, strip
from r1nb.policy.cards import Card, read_card
from r1nb.policy.decoding import decode_plainly
from r1nb.policy.gguf import mend_gguf
from r1nb.policy.policy import Policy
from r1nb.processes import processes
from r1nb.recipes.loading import default_runs_dir, environment_overrides, load_recipe, recipe_of_run
from r1nb.recipes.recipe import build_recipe, known_rewards
from r1nb.recipes.settings import ModelSettings
from r1nb.runs.run import Run
from r1nb.text.templates import prepare_tokenizer

LONGEST = 4096  # tokens of prompt and completion for a model that comes without a recipe
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def load_policy(recipe) -> Policy:
    """Load the base model of a recipe; views.code shows the call."""
    base = recipe.model
    if recipe.lora and recipe.lora.start_from:  # raises before loading if that run is missing
        Run.named(recipe.lora.start_from, recipe.output.runs_dir)
    prepare_unsloth(base)
    load = _load_unsloth if base.engine == "unsloth" else _load_plain
    with out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        try:
            model, tokenizer = load(recipe)
        except UserError:
            raise
        except OSError as error:
            raise UserError(cannot_load(base.model_name, error)) from None
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            why = f"{base.model_name} cannot be loaded ({first_line(error)})"
            raise UserError(f"{why}: mend that in the model's files, or choose another model.") from None
    told = prepare_tokenizer(tokenizer, recipe.layout, recipe.grpo.get("chat_template_kwargs"))
    for sentence in told + decode_plainly(model):
        print(sentence)
    if recipe.lora:
        check_targets(model, recipe)
    check_model(model, recipe)
    return Policy(model, tokenizer, base)


def _load_plain(recipe) -> tuple:
    base = recipe.model
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    if base.torch_threads:
        cores = (os.cpu_count() or 1) // processes()
        torch.set_num_threads(max(1, min(base.torch_threads, cores)))
    torch.manual_seed(recipe.grpo["seed"])
    path, options = locate(base.model_name)
    if os.path.isdir(path):
        logging.disable_progress_bar()  # of reading weights; a download still shows its progress
    arguments = loading_arguments(recipe)
    if base.load_in_4bit:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError("load_in_4bit=True needs bitsandbytes: pip install bitsandbytes==0.50.2.")
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=arguments["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(path, gguf_file=options.get("gguf_file"))
    model = AutoModelForCausalLM.from_pretrained(path, **arguments, **options)
    keep_gradients(model)
    if "gguf_file" in options:
        mend_gguf(model, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def loading_arguments(recipe) -> dict:
    """The arguments of from_pretrained that load a recipe's model on this machine, without the model's name.

    With load_in_4bit but without Unsloth, a quantization_config (NF4) is added to them.
    """
    import torch

    base, dtype = recipe.model, compute_dtype(recipe.model)
    if base.engine != "unsloth":
        on_card = torch.cuda.is_available() and not recipe.grpo.get("use_cpu")
        card = {"device_map": {"": int(os.environ.get("LOCAL_RANK", 0))}} if on_card else {}
        return {"dtype": dtype} | card
    memory = {"gpu_memory_utilization": base.gpu_memory_utilization} if base.fast_inference else {}
    return {
        "dtype": getattr(torch, dtype),
        "max_seq_length": base.max_seq_length,
        "load_in_4bit": base.load_in_4bit,
        "fast_inference": base.fast_inference,
        "max_lora_rank": base.max_lora_rank or recipe.lora.r,
        "random_state": recipe.grpo["seed"],
        "use_gradient_checkpointing": recipe.lora.use_gradient_checkpointing or False,
        "use_exact_model_name": True,  # otherwise Unsloth may load another copy of the model
    } | memory


def adapter_arguments(recipe) -> dict:
    """The arguments of a fresh adapter: of peft.LoraConfig, or of FastLanguageModel.get_peft_model."""
    if recipe.model.engine == "unsloth":
        return recipe.lora.model_dump(exclude={"start_from"}) | {"random_state": recipe.grpo["seed"]}
    given = recipe.lora.model_dump(exclude={"start_from", "use_gradient_checkpointing"})
    return {"task_type": "CAUSAL_LM", **given}


def attach_lora(policy: Policy, recipe) -> None:
    """Put a new adapter on the base model (B = 0, so its answers stay the same), or that of `start_from`.

    If the recipe has no adapter (`lora: null`), all weights are trained. A new adapter is seeded: the same
    recipe starts from the same adapter. Raises UserError if the adapter of `start_from` is missing, does not
    fit this base model, or has another rank.
    """
    from transformers import set_seed

    seed = recipe.grpo["seed"]
    set_seed(seed)
    if policy.has_adapter:  # a notebook's cells are run again
        if recipe.model.engine == "unsloth":
            raise UserError("This policy already has an adapter: run the notebook from the top.")
        policy.model = strip(policy.model)
    if recipe.lora is None:
        policy.model.requires_grad_(True)
    elif recipe.lora.start_from:
        _continue_adapter(policy, recipe)
    elif recipe.model.engine == "unsloth":
        from unsloth import FastLanguageModel

        policy.model = FastLanguageModel.get_peft_model(policy.model, **adapter_arguments(recipe))
    else:
        from peft import LoraConfig, get_peft_model

        policy.model = get_peft_model(policy.model, LoraConfig(**adapter_arguments(recipe)))


def _continue_adapter(policy: Policy, recipe) -> None:
    """Put a finished run's adapter on the base model, to train it further."""
    parent = Run.named(recipe.lora.start_from, recipe.output.runs_dir)
    policy.load_adapter(parent.adapter, recipe.layout)
    rank = policy.model.peft_config["default"].r
    if rank != recipe.lora.r:
        raise UserError(f"The adapter of {parent.name} has rank {rank}, not {recipe.lora.r}: set r={rank}.")
    policy.model.set_adapter("default")  # PEFT trains only the active adapter


def load_trained(folder: Path | str | None = None, base: Path | str | None = None):
    """(policy, recipe, folder) from a run folder, an adapter folder or a whole model's folder.

    None takes the newest finished run. The recipe is that of the run; outside a run it is the recipe on the
    card, and if there is no card, `tiny-cpu` with the model of the folder. `base` is the folder or name of an
    adapter's base model, if it lies elsewhere than where the adapter was trained.
    """
    if folder is None:
        run = Run.latest(default_runs_dir())
        if run is None:
            raise UserError("There is no finished run yet: run notebook 03 or `make train` first.")
        folder = run.folder
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of an adapter, a run or a merged model.")
    if run := _run_of(folder):
        trained = run.trained
    else:  # of a run with a torn recipe, or outside a run
        trained = next((path for path in (folder / "adapter", folder / "model") if path.is_dir()), folder)
    is_adapter = (trained / "adapter_config.json").is_file()
    if not is_adapter and not (trained / "config.json").is_file():
        raise UserError(f"{folder} has neither adapter_config.json nor config.json: not an adapter or model.")
    recipe = _recipe_of(trained, is_adapter)
    if is_adapter:
        recipe = with_base(recipe, base)
    elif base is not None:
        raise UserError(
            f"{trained.name} is a whole model, which needs no base model: leave out base={base!r}."
        )
    prepare_unsloth(recipe.model)
    import torch

    if torch.cuda.is_available():
        recipe.grpo.pop("use_cpu", None)
        recipe = fall_back(recipe)
    policy = load_policy(recipe)
    if is_adapter:
        policy.load_adapter(trained, recipe.layout)
    return policy, recipe, trained


def with_base(recipe, base: Path | str | None = None):
    """The recipe with the base model `base`; if none is given and the recipe's is not found, R1NB_SET's."""
    if base is None:
        try:
            load_config(recipe.model.model_name)
            return recipe
        except UserError as error:
            given = environment_overrides()
            base = given.get("model_name", given.get("model.model_name"))
            if base is None:
                raise UserError(
                    f"{str(error).rstrip('.')}; if the base model lies elsewhere now, set "
                    "R1NB_SET='model_name=...' to its folder or name, or give load_trained(..., base=...)."
                ) from None
    model = ModelSettings(**dict(recipe.model) | {"model_name": str(base)})
    return recipe.model_copy(update={"model": model})


def _run_of(folder: Path) -> Run | None:
    """The run of a folder; None if the folder is not a run, or if its recipe is torn, which is said."""
    if not (folder / "recipe.yaml").is_file():
        return None
    run = Run(folder)
    try:
        run.recipe  # noqa: B018  # raises if it is torn
    except UserError as error:
        say_once(f"{error} Until then the card of its weights is read instead.")
        return None
    return run


def _recipe_of(trained: Path, is_adapter: bool):
    """The recipe for the folder of an adapter or a model: from its run, else from its card, else tiny-cpu."""
    import torch

    in_run = _run_of(trained.parent)
    card = None if in_run else read_card(trained)
    recipe = recipe_of_run(in_run) if in_run else _recipe_on_card(card, trained.name)
    changes = dict(card.model) if card else {}
    if not is_adapter:  # plain weights; a whole model of float32 stays so on a CPU
        own = str(load_config(str(trained)).dtype)
        dtype = "float32" if own.endswith("float32") and not torch.cuda.is_available() else None
        changes |= {"model_name": str(trained), "load_in_4bit": False, "dtype": dtype}
        if not in_run and not card:
            changes["max_seq_length"] = min(LONGEST, load_config(str(trained)).max_position_embeddings)
    changed = {"model": recipe.model.model_copy(update=changes)}
    if card:
        changed["data"] = recipe.data.model_copy(update={"layout": card.layout})
    if recipe.lora:  # the trained adapter already contains that one
        changed["lora"] = recipe.lora.model_copy(update={"start_from": None})
    return recipe.model_copy(update=changed)


def _recipe_on_card(card: Card | None, name: str):
    """The recipe on the card of a folder outside its run; tiny-cpu if there is none or it is refused.

    Rewards defined only in the run's notebook are left out. A recipe of another r1nb version may be refused.
    """
    default, said = load_recipe(), f"The recipe on the card of {name}"
    if not card or not card.recipe:
        return default
    raw, rewards = card.recipe, card.recipe.get("rewards")
    if isinstance(rewards, dict):
        raw = raw | {"rewards": known_rewards(rewards, said)}
    try:
        return build_recipe(raw)
    except UserError as error:
        print(f"{said} is refused: {error} {default.name} is used instead, except for model and layout.")
        return default


def keep_gradients(model) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for AVX512-BF16.

    On such CPUs one answer in eval mode repacks them. After that, all gradients of the adapter are 0, and no
    error is raised.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _load_unsloth(recipe) -> tuple:
    base = recipe.model
    require_unsloth(base)
    try:
        from unsloth import FastLanguageModel
    except (ImportError, NotImplementedError, OSError) as error:
        why = f"needs Unsloth, which cannot be imported here ({first_line(error)})"
        raise UserError(f"Recipe {recipe.name} {why}; install r1nb[gpu] on a CUDA machine.") from None
    path, _ = locate(base.model_name)
    arguments = loading_arguments(recipe)
    try:
        return FastLanguageModel.from_pretrained(path, **arguments)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if not base.fast_inference or is_out_of_memory(error):
            raise
        raise UserError(
            f"vLLM could not start ({str(error).splitlines()[0]}): restart the kernel and set OVERRIDES = "
            "{'fast_inference': False, 'use_vllm': False}; without vLLM a step takes several times as long."
        ) from error
