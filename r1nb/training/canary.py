"""During training: are the completions sampled from the adapter, or from the base model?

A release of Unsloth with a newer TRL sampled all completions from the base model, with finite losses. So now
and then the canary takes a few completions and compares the log-probabilities of their tokens: those of the
adapter, those of the base model, and the sampler's own.

- vLLM, and r1nb's own decoding, return the sampler's. The model that they are much nearer to is the sampler.
- Other samplers return none. Then the tokens decide, by Wald's sequential test (1945): the log-probability by
  the adapter minus that by the base, summed over all tokens, grows if the adapter wrote them and falls if the
  base did. If the adapter wrote them, the chance that the sum ever falls to -x is at most exp(-x).

The canary draws no random number and changes no weight. With several processes each compares completions of
its own, the figures are added up, and all decide the same.
"""

import sys
import time
from dataclasses import dataclass

import torch

from r1nb.errors import UserError

ROWS = 8  # completions of a check, of one group
EVERY = 8  # batches of completions between two checks, after the first few
FIGURE = "sampling/sampling_logp_difference"  # TRL's name for the difference between sampler and trainer
ENTROPY = "sampling/entropy"  # estimated as the mean of -log p by the trainer; Unsloth logs none
TIMES = 3  # how many times nearer to one of the models the sampler must be
# The same for the base, if the adapter is merged to sample: in 16 bits rounding can then lose most of a small
# change, and the sampler is between the two models.
IF_MERGED = 10
LATE = 6  # checks after which a doubt is printed
IN_A_ROW = 2  # checks that must find the base, if the sampler's log-probabilities decide
NATS = 30.0  # the sum at which the sequential test decides
APART = 0.1  # nats a token; for models nearer to each other rounding in bfloat16 would decide the test
ADAPTER, BASE, UNDECIDED = "adapter", "base", ""


class SampledBase(UserError):  # noqa: N818  # its message says what to do
    """The completions come from the base model; the message is sentence()."""


@dataclass(frozen=True)
class Found:
    """What a check found; differences are means of absolute values, in nats a token."""

    tokens: int  # that were compared
    apart: float  # adapter and base
    gain: float  # log-probability by the adapter minus that by the base, summed over the tokens
    scored: int = 0  # tokens whose log-probability the sampler gave
    to_adapter: float = 0.0  # sampler and adapter
    to_base: float = 0.0  # sampler and base
    most: float = 0.0  # sampler and adapter, the largest
    entropy: float = 0.0  # of the adapter, estimated by these tokens


class Canary:
    """Checks the batches of a trainer; `seconds` is the time that this took."""

    def __init__(self):
        self.checks, self.verdict, self.seconds, self._sum, self._bases = 0, UNDECIDED, 0.0, 0.0, 0
        self._batch = None

    def check(self, trainer, batch: dict, sampled) -> None:
        """Check a batch as TRL prepares it, if a check is due; log how far the sampler is from the trainer.

        `sampled` are the sampler's log-probabilities (completions, tokens), or None. Raises SampledBase if
        the completions come from the base model. Without an adapter the difference is only logged.
        """
        args, step = trainer.args, trainer.state.global_step
        before = step * args.gradient_accumulation_steps // (args.steps_per_generation * args.num_iterations)
        number = self._batch = before if self._batch is None else self._batch + 1  # a run may be resumed
        # Not batch 0, in which a new adapter has no effect.
        due = number in (1, 2, 4) or (number and number % EVERY == 0)
        if not due or trainer.rollout_func or trainer.tools or trainer._is_vlm:
            return
        begin = time.perf_counter()
        found, metrics = compare(trainer, batch, sampled), trainer._metrics["train"]
        if found.scored:
            metrics[ENTROPY].append(found.entropy)
            if not (trainer.use_vllm and args.vllm_importance_sampling_correction):  # else TRL logs it
                metrics[f"{FIGURE}/mean"].append(found.to_adapter)
                metrics[f"{FIGURE}/max"].append(found.most)
        if getattr(trainer.model, "peft_config", None) and found.tokens:
            engine = getattr(trainer.model, "vllm_engine", None)  # Unsloth's may have the model's own weights
            self.hear(found, whole_distribution(args), not getattr(engine, "shared_weights", False))
        self.seconds += time.perf_counter() - begin
        if self.verdict == BASE:
            raise SampledBase(f"After step {step} {sentence(trainer)}")

    def hear(self, found: Found, whole: bool = True, merged: bool = True) -> None:
        """Add a check to the verdict.

        `whole`: the sampler draws from the whole distribution; `merged`: it has the adapter in its weights.
        """
        self.checks += 1
        if found.scored:
            times = IF_MERGED if merged else TIMES
            self._bases = self._bases + 1 if found.to_base < found.to_adapter / times else 0
            adapter, base = found.to_adapter < found.to_base / TIMES, self._bases >= IN_A_ROW
        else:
            if whole and found.apart > APART:
                self._sum = min(self._sum + found.gain, NATS)  # so that a later fault is found as soon
            adapter, base = self._sum >= NATS, self._sum <= -NATS
        if adapter or base:
            self.verdict = BASE if base else ADAPTER

    @property
    def doubt(self) -> str:
        """A sentence if no check could decide; "" if one did, or if there was no check."""
        if self.verdict or not self.checks:
            return ""
        return (
            f"{self.checks} checks could not tell whether the adapter or the base model writes the "
            "completions: it takes an adapter that differs more, or a sampler that returns log-probabilities."
        )


def sentence(trainer) -> str:
    """That the base model was sampled, and what to do; with the versions of the libraries that sample."""
    names = [name for name in ("trl", "unsloth", "vllm", "transformers") if name in sys.modules]
    versions = ", ".join(f"{name} {sys.modules[name].__version__}" for name in names)
    gpu = trainer.use_vllm or "unsloth" in sys.modules
    return (
        "the completions are sampled from the base model and not from the adapter, so training is of no use; "
        f"installed are {versions}: install r1nb{'[gpu]' * gpu} again, which takes versions that fit"
        + (", or set engine=transformers and use_vllm=False." if gpu else ".")
    )


def whole_distribution(args) -> bool:
    """Whether a GRPOConfig samples from all tokens with the model's own probabilities."""
    cut = args.top_p < 1 or args.top_k or args.min_p or args.repetition_penalty != 1
    return not (cut or args.generation_kwargs)


@torch.no_grad()
def compare(trainer, batch: dict, sampled) -> Found:
    """Compare the log-probabilities of the tokens of a few completions, in eval mode (no dropout)."""
    model, training = trainer.model, trainer.model.training
    count = min(ROWS, trainer.num_generations)  # of one prompt, which then needs no padding
    prompts, prompt_mask, tokens, mask = (
        batch[f"{part}_{kind}"][:count] for part in ("prompt", "completion") for kind in ("ids", "mask")
    )
    written = (tokens != trainer._tokenizer.pad_token_id).to(mask.dtype)
    mask = torch.where(mask.any(1, keepdim=True), mask, written)  # TRL masks truncated completions on request
    start = int(prompt_mask.sum(1).max())
    ids, seen = torch.cat([prompts[:, -start:], tokens], 1), torch.cat([prompt_mask[:, -start:], mask], 1)

    def score():
        size = trainer.args.per_device_train_batch_size
        found = trainer._get_per_token_logps_and_entropies(model, ids, seen, mask.size(1), batch_size=size)
        return found[0].float()

    model.eval()
    try:
        by_adapter = by_base = score()
        if getattr(model, "peft_config", None):
            with model.disable_adapter():
                by_base = score()
    finally:
        model.train(training)
    real = mask.bool()
    sampled = torch.full_like(by_base, torch.nan) if sampled is None else sampled[:count]
    scored = real & ~sampled.isnan()  # vLLM gives NaN for some tokens
    far = (sampled - by_adapter).abs()[scored]
    sums = [real.sum(), (by_adapter - by_base).abs()[real].sum(), (by_adapter - by_base)[real].sum(),
            scored.sum(), far.sum(), (sampled - by_base).abs()[scored].sum(), -by_adapter[scored].sum(),
            far.max() if len(far) else far.sum()]  # fmt: skip
    every = trainer.accelerator.gather(torch.stack([value.float() for value in sums])[None])
    n, apart, gain, m, *means, _ = every.sum(0).tolist()
    to_adapter, to_base, entropy = (total / max(m, 1) for total in means)
    return Found(
        int(n), apart / max(n, 1), gain, int(m), to_adapter, to_base, every[:, -1].max().item(), entropy
    )
