"""Load a policy from a recipe, and attach an adapter.

There are two engines: transformers + PEFT anywhere, and Unsloth (with vLLM for generation) on a CUDA GPU.
"""

import importlib.util
import os
from pathlib import Path

from r1nb.errors import UserError, first_line
from r1nb.machine.configs import check_model
from r1nb.machine.engine import compute_dtype, prepare_unsloth, require_unsloth
from r1nb.machine.model_files import cannot_load, locate
from r1nb.machine.out_of_memory import is_out_of_memory, out_of_memory_in_words, remedy_for
from r1nb.paths import runs_folder, user_path
from r1nb.policy.adapters import CONFIG, check_targets, strip
from r1nb.policy.decoding import check_tokens, decode_plainly, set_end_token
from r1nb.policy.gguf import mend_gguf
from r1nb.policy.policy import Policy
from r1nb.policy.usage import NF4
from r1nb.processes import processes
from r1nb.runs.run import CARD, Run
from r1nb.text.templates import prepare_tokenizer


def load_policy(recipe, to_train: bool = True) -> Policy:
    """Load the base model of a recipe; views.code shows the call.

    Raises UserError if the model's files are missing or damaged, or if the recipe cannot train the model.
    `to_train=False` skips the last check, since the recipe may have been written for another model.
    """
    base = recipe.model
    if recipe.lora and recipe.lora.start_from:  # raises before loading if it is missing
        starting_adapter(recipe)
    prepare_unsloth(base)
    load = _load_unsloth if base.engine == "unsloth" else _load_plain
    with out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        try:
            model, tokenizer = load(recipe)
        except Exception as error:  # the files may contain anything
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            raise UserError(cannot_load(base.model_name, error)) from error
    if hasattr(model, "peft_config"):
        why = f"model_name = {base.model_name!r} holds an adapter besides the model, and both would be loaded"
        raise UserError(f"{why}: move adapter_config.json and the adapter's weights to another folder.")
    set_end_token(model, tokenizer)
    options = recipe.grpo.get("chat_template_kwargs")
    for sentence in prepare_tokenizer(tokenizer, recipe.layout, options) + decode_plainly(model):
        print(sentence)
    check_tokens(model, tokenizer, recipe.layout)
    if to_train:
        check_targets(model, recipe)
        check_model(model, recipe)
    return Policy(model, tokenizer, base, options)


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
    if base.dtype is None and not torch.cuda.is_available():
        has = "has" if arguments["dtype"] == "bfloat16" else "has no"
        print(f"The model computes in {arguments['dtype']}: this processor {has} instructions for bfloat16.")
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
    policy.folder = None  # what is trained now has not been saved yet


def starting_adapter(recipe) -> Path:
    """The folder of the adapter that `start_from` names: a run's, by the run's name or folder, or its own.

    Raises UserError, which names the finished runs, if there is no adapter.
    """
    name, runs_dir = recipe.lora.start_from, recipe.output.runs_dir
    places = (runs_folder(runs_dir) / user_path(name), user_path(name).resolve())
    folders = [folder for folder in places if folder.is_dir()]
    for folder in folders:
        if (folder / "adapter" / CARD).is_file():
            return folder / "adapter"
        if (folder / CONFIG).is_file():
            return folder
    why = "there is no run and no folder of this name"
    if folders:
        is_run = (folders[0] / "recipe.yaml").is_file()
        why = (
            f"{'it did not finish, so' if is_run else 'it is not the folder of a run, and'} it has no adapter"
        )
    finished = [run.name for run in Run.all(runs_dir) if (run.adapter / CARD).is_file()][:8]
    others = ", ".join(finished) or "none"
    raise UserError(f"Training cannot start from {name!r}: {why}. Finished runs: {others}.")


def _continue_adapter(policy: Policy, recipe) -> None:
    """Put the adapter of `start_from` on the base model, to train it further."""
    policy.load_adapter(starting_adapter(recipe), recipe.layout)
    rank = policy.model.peft_config["default"].r
    if rank != recipe.lora.r:
        raise UserError(
            f"The adapter of {recipe.lora.start_from} has rank {rank}, not {recipe.lora.r}: set r={rank}."
        )
    policy.model.set_adapter("default")  # PEFT trains only the active adapter


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
    try:
        model, tokenizer = FastLanguageModel.from_pretrained(path, **loading_arguments(recipe))
        return model, getattr(tokenizer, "tokenizer", tokenizer)  # of a model that also reads images
    except Exception as error:  # Triton's errors have types of their own
        if not base.fast_inference or isinstance(error, OSError) or is_out_of_memory(error):
            raise
        raise UserError(
            f"vLLM could not start ({first_line(error)}): restart the kernel and set OVERRIDES = "
            "{'fast_inference': False, 'use_vllm': False}; without vLLM a step takes several times as long."
        ) from error
