"""The policy: a model, its tokenizer and perhaps a LoRA adapter, which answers prompts."""

import hashlib
import re
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from r1nb.errors import UserError
from r1nb.policy.adapters import NOT_FINITE, is_finite, load_onto
from r1nb.policy.cards import short_name, write_cards
from r1nb.policy.publish import push
from r1nb.recipes.settings import Sampling
from r1nb.runs.disk import full_disk_in_words
from r1nb.text.prompts import REASONING, Layout, format_prompt

OF_ADAPTER = re.compile(r"lora_|\.modules_to_save\.|\.trainable_tokens_")  # in names of weights


@dataclass(frozen=True)
class Completion:
    text: str
    ids: tuple[int, ...]  # tokens, without prefill and end token
    cut: bool  # truncated: stopped by the token limit, not by an end token


class Policy:
    """A model with its tokenizer; `model_settings` is the recipe's section `model`.

    `chat_template_kwargs` are those of the recipe, which prepare_tokenizer has put into the tokenizer.
    """

    def __init__(self, model, tokenizer, model_settings, chat_template_kwargs: dict | None = None):
        self.model, self.tokenizer, self.model_settings = model, tokenizer, model_settings
        self.chat_template_kwargs = chat_template_kwargs
        self.folder: Path | None = None  # where the trained weights were saved to, or loaded from

    @property
    def has_adapter(self) -> bool:
        return bool(getattr(self.model, "peft_config", None))

    @property
    def sides(self) -> dict[str, bool]:
        """{name: the argument `adapter` of generate} of who can answer: base and adapter, or one model."""
        return {"base": False, "adapter": True} if self.has_adapter else {"model": True}

    def generate(
        self, prompts: list[list[dict]], sampling: Sampling, adapter: bool = True, prefill: str = ""
    ) -> list[Completion]:
        """One completion for each prompt (chat messages), in one batch.

        With `adapter=False` the base model answers. Each reply is prefilled with `prefill`, which is part of
        the completion's text.
        """
        texts = [format_prompt(self.tokenizer, messages, prefill) for messages in prompts]
        base = self.has_adapter and not adapter
        if self.model_settings.fast_inference:
            return self._generate_vllm(texts, sampling, base, prefill)
        import torch

        from r1nb.policy.generation import faster  # imports what Unsloth must patch before

        batch = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        ).to(self.model.device)
        drawn = {"do_sample": False}
        if sampling.temperature > 0:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p,
                     "top_k": 0}  # fmt: skip
        training = self.model.training
        self.model.eval()
        try:
            # On a GPU, merged weights in 16 bits are rounded otherwise than those of the proof.
            speed = faster(self.model) if self.model.device.type == "cpu" else nullcontext()
            with torch.no_grad(), self.model.disable_adapter() if base else nullcontext(), speed:
                output = self.model.generate(
                    **batch,
                    **drawn,
                    use_cache=True,  # Unsloth turns it off for training
                    max_new_tokens=sampling.max_tokens,
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=self.end_tokens,
                )
        finally:
            self.model.train(training)
        return [self._completion(ids, prefill) for ids in output[:, batch.input_ids.shape[1] :].tolist()]

    def check_room(self, messages: list[dict], max_tokens: int) -> None:
        """Raise UserError if a prompt with an answer of `max_tokens` tokens is above max_seq_length."""
        prompt = format_prompt(self.tokenizer, messages)
        length = len(self.tokenizer(prompt, add_special_tokens=False).input_ids)
        if length > (room := self.model_settings.max_seq_length - max_tokens):
            raise UserError(
                f"The prompt has {length} tokens, but beside an answer of {max_tokens} tokens there is room "
                f"for {room}: shorten the question."
            )

    @property
    def end_tokens(self) -> list[int]:
        configured = self.model.generation_config.eos_token_id
        configured = configured if isinstance(configured, list) else [configured]
        return sorted({self.tokenizer.eos_token_id, *configured} - {None})

    def _completion(self, ids: list[int], prefill: str) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self.end_tokens), None)
        kept = ids if end is None else ids[:end]
        text = prefill + self.tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, tuple(kept), end is None)

    def _generate_vllm(self, texts, sampling: Sampling, base: bool, prefill: str):
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop_token_ids=self.end_tokens,
        )
        prompts = [
            {"prompt_token_ids": ids}  # given text, vLLM would add a second begin token
            for ids in self.tokenizer(texts, add_special_tokens=False).input_ids
        ]
        with tempfile.TemporaryDirectory() as folder:
            request = None
            if self.has_adapter and not base:  # the adapter as it is now
                self.model.save_lora(folder)
                request = self.model.load_lora(folder)
            outputs = self.model.fast_generate(
                prompts, sampling_params=params, lora_request=request, use_tqdm=False
            )
        return [self._completion(list(output.outputs[0].token_ids), prefill) for output in outputs]

    def rest(self) -> None:
        """Free vLLM's cache on the GPU, if standby is on; the next completion allocates it again."""
        if self.model_settings.fast_inference and self.model_settings.unsloth_vllm_standby:
            self.model.vllm_engine.sleep(1)

    def fingerprint(self) -> str:
        """A hash of the base model's embedding and norm weights (never quantised) and of their shapes.

        A base model has the same hash in 4-bit and in 16-bit; an adapter fits only if its hash is equal.
        """
        import torch

        base = [(n, w) for n, w in sorted(self.model.named_parameters()) if not OF_ADAPTER.search(n)]
        named = [weight for name, weight in base if "norm" in name or "embed_tokens" in name]
        digest = hashlib.sha256()
        for weight in named or [weight for _, weight in base if weight.dim() == 1]:  # GPT-2 has other names
            stride = max(1, weight.numel() // 4096)
            digest.update(str(tuple(weight.shape)).encode())
            # Rounded to both dtypes, so that the hash is the same on a GPU that supports only one of them.
            sample = weight.detach().flatten()[::stride].to("cpu", torch.bfloat16).to(torch.float16)
            digest.update(sample.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save_adapter(self, folder: Path, run=None, layout: Layout = REASONING) -> Path:
        """Save the adapter as PEFT safetensors, with its cards (policy.cards).

        `layout` is the layout that it was trained with; a `run` has its own. Raises UserError if the weights
        are not finite, since such a policy cannot answer.
        """
        if not self.has_adapter:
            raise UserError("This policy has no adapter: policy.save_trained(run) saves all its weights.")
        config = self.model.peft_config["default"]
        config.base_model_name_or_path = short_name(self.model_settings.model_name)
        options = {"selected_adapters": ["default"], "save_embedding_layers": False}
        return self._save(folder, run, layout, **options)

    def save_trained(self, run) -> Path:
        """Save the trained weights into run.trained: the adapter, or if there is none the whole model."""
        with full_disk_in_words(run):
            if self.has_adapter:
                return self.save_adapter(run.adapter, run)
            return self._save(run.model, run)

    def _save(self, folder: Path, run, layout: Layout = REASONING, **options) -> Path:
        if not is_finite(self.model):
            raise UserError(NOT_FINITE)
        folder = Path(folder).expanduser()
        self.model.save_pretrained(str(folder), **options)
        self.tokenizer.save_pretrained(str(folder))  # its chat template may differ from the base model's
        write_cards(folder, self, run, layout)
        self.folder = folder
        return folder

    def push_to_hub(self, name: str, private: bool = True) -> str:
        """Push the trained weights, as they were last saved or loaded, to the Hub; returns the address.

        `name` is owner/model. A new repository is private unless `private=False` is given. The adapter's (or
        model's) files are pushed with a model card (policy.cards), and nothing else of the run. Raises
        UserError if nobody is logged in, or if the policy has not been saved.
        """
        if self.folder is None:
            raise UserError("This policy has not been saved: policy.save_trained(run) does that.")
        return push(self, self.folder, name, private)

    def load_adapter(self, folder: Path | str, layout: Layout | None = None) -> None:
        """Put a saved adapter on the base model; it replaces an adapter that is already there.

        Raises UserError, and changes nothing, if it does not fit this base model (adapters.load_onto).
        """
        folder = Path(folder).expanduser()
        self.model, self.folder = load_onto(self, folder, layout), folder
        if self.model_settings.engine == "unsloth":
            from unsloth import FastLanguageModel

            # Adds load_lora and the export methods; the CPU backend does not have them.
            if hasattr(FastLanguageModel, "patch_peft_model"):
                self.model = FastLanguageModel.patch_peft_model(self.model, "unsloth")
            self.model.eval()
