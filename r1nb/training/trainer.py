"""A faster trl.GRPOTrainer for the transformers engine: it skips work that does not change the result.

The completions of a group share their prompt, a merged adapter gives the same output as an unmerged one, and
a completion with advantage 0 has no gradient. SharedPromptTrainer uses these facts. Except for rounding, its
tokens, loss and gradients equal GRPOTrainer's.
"""

import sys
from contextlib import nullcontext

import torch
from torch import nn
from transformers import DynamicCache
from trl import GRPOTrainer
from trl.trainer.utils import selective_log_softmax_and_entropy

from r1nb.policy.generation import distinct, faster, mergeable, shareable
from r1nb.training.canary import LATE, Canary
from r1nb.training.head import HeadLogps, plain_head, without

# Losses for which it does not matter in which micro-batch of a step a row is.
ANY_ORDER = ("grpo", "dapo", "dr_grpo", "cispo", "sapo", "vespo")
TOGETHER = 16  # completions of similar length in one forward pass when gradients are computed


class SharedPromptTrainer(GRPOTrainer):
    """A drop-in for trl.GRPOTrainer: the same arguments, the same GRPOConfig, the same training.

    - It samples with the adapter merged, reads each distinct prompt once, and drops finished completions.
      Merging needs memory for a copy of the adapted weights, and rounds differently if they are bfloat16.
    - It runs each distinct prompt once for the log-probabilities; gradients flow through its cache. With
      gradient accumulation TRL scatters a group over the micro-batches; here a group stays together.
    - It does not run a completion whose advantage is exactly 0, unless another term of the loss needs it.

    It also logs `shared/prompts` and `shared/completions`, the distinct prompts and the completions of a
    batch of rollouts, and `shared/skipped`, the completions that were not run. `entropy` is the mean over
    those that were run; if all have advantage 0, some are run for the entropy alone. If none of this can be
    done, it prints the reason once and runs GRPOTrainer's own code.

    Its canary checks now and then that the completions come from the adapter; see training.canary.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # While a loss is computed: which rows have a gradient, and their old log-probabilities.
        self._teaching = None
        self._said = set()
        self.canary = Canary()
        self.obstacle = _obstacle(self)
        self.head = None if self._entropy_bonus_enabled else plain_head(self.model)
        if self.obstacle:
            self._say("obstacle", f"TRL's own code samples and trains, since {self.obstacle}.")

    def train(self, *args, **kwargs):
        output = super().train(*args, **kwargs)
        self._say_doubt()
        return output

    def _say_doubt(self) -> None:
        if doubt := self.canary.doubt:
            self._say("doubt", doubt)

    def _say(self, what: str, sentence: str) -> None:
        if what not in self._said and self.accelerator.is_main_process:
            print(sentence)
        self._said.add(what)

    def _count(self, name: str, figure: int) -> None:
        self._metrics["train" if self.model.training else "eval"][f"shared/{name}"].append(figure)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        if self.obstacle:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        prompts, completions = len(set(map(tuple, prompt_ids))), len(prompt_ids)
        self._say("shared", f"The policy reads {prompts} prompts once each for {completions} completions.")
        self._count("prompts", prompts)
        self._count("completions", completions)
        logps = []
        with faster(self.accelerator.unwrap_model(self.model_wrapped), logps):
            ids, sampled = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        if logps:
            sampled = [row[: len(one)] for one, row in zip(ids, logps[0].tolist(), strict=True)]
        return ids, sampled

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        sampled = output.get("sampling_per_token_logps")
        if not (self.use_vllm or self.rollout_func):  # else TRL's loss may use them
            output.pop("sampling_per_token_logps", None)
        if self.model.training:
            self.canary.check(self, output, sampled)
            if self.canary.checks >= LATE:  # training may not reach its end
                self._say_doubt()
        summed = self.multi_objective_aggregation == "sum_then_normalize"
        if summed and self.model.training and not self.obstacle:
            # A group of equal rewards teaches nothing: rounding may have made its advantages 1e-7, not 0.
            groups = output["advantages"].view(-1, self.num_generations)
            groups[equal := (groups == groups[:, :1]).all(1)] = 0.0
            # With scale_rewards="batch" TRL counts the groups by the deviation of the batch, and finds none.
            self._metrics["train"]["frac_reward_zero_std"][-1] = equal.float().mean().item()
        return output

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        parts = self._buffered_inputs
        one_step = self.args.steps_per_generation == self.args.gradient_accumulation_steps
        if not self.model.training or parts is before or len(parts) == 1 or self.obstacle:
            return inputs
        if one_step and self.loss_type in ANY_ORDER:
            self._buffered_inputs = together(parts)
        return self._buffered_inputs[self._step % len(parts)]

    def _compute_loss(self, model, inputs):
        advantages = inputs["advantages"]
        others = self.beta or self._entropy_bonus_enabled or self.top_entropy_quantile < 1
        if not (self.obstacle or others or advantages.dim() > 1) and self.model.training:
            rows = inputs["completion_mask"].any(1) & (advantages != 0)
            self._teaching = rows, inputs.get("old_per_token_logps")
            self._count("skipped", skipped := int((~rows).sum()))
            if skipped:
                self._say(
                    "skipped", f"{skipped} of {len(rows)} completions teach nothing (advantage 0): skipped."
                )
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._teaching = None

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False,
        **kwargs,
    ):  # fmt: skip
        if self.obstacle:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size,
                compute_entropy=compute_entropy, **kwargs,
            )  # fmt: skip
        inputs = input_ids, attention_mask
        if self._teaching is None:
            return *self._score(model, *inputs, logits_to_keep, batch_size), None
        rows, logps = self._teaching
        if logps is None:
            logps = input_ids.new_zeros(len(rows), logits_to_keep, dtype=torch.float32)
        if not rows.any():
            # Each weight gets a gradient of 0, not None, so that the optimizer's momentum changes as in TRL.
            zero = sum((p * 0).sum() for p in model.parameters() if p.requires_grad)
            with torch.no_grad():  # some are run because the logged entropy can show a collapse
                entropies = self._score(model, *(x[:TOGETHER] for x in inputs), logits_to_keep)[1]
            mean = entropies.sum() / attention_mask[:TOGETHER, -logits_to_keep:].sum().clamp(min=1)
            return logps + zero, mean.expand_as(logps), None
        found, entropies = self._score(model, *(x[rows] for x in inputs), logits_to_keep)
        mean = entropies.sum() / attention_mask[rows, -logits_to_keep:].sum()
        every = rows.nonzero().squeeze(1)
        return (
            logps.to(found.dtype).index_copy(0, every, found),
            mean.expand_as(logps).index_copy(0, every, entropies),
            None,
        )

    def _score(self, model, input_ids, attention_mask, count, batch_size=None):
        """(log-probabilities, entropies), each (rows, count), of the last `count` tokens; 0 where padded."""
        with without(self.head) if self.head else nullcontext():
            return self._run(model, input_ids, attention_mask, count, batch_size)

    def _run(self, model, input_ids, attention_mask, count, batch_size):
        width = input_ids.size(1) - count
        prompts, mask, inverse = distinct(input_ids[:, :width], attention_mask[:, :width])
        cache = DynamicCache(config=model.config)
        last = model(input_ids=prompts, attention_mask=mask, past_key_values=cache, logits_to_keep=1).logits
        states = [(layer.keys, layer.values) for layer in cache.layers]
        order = attention_mask[:, width:].sum(1).argsort(stable=True)
        parts = []
        for rows in order.split(batch_size or TOGETHER):
            end = width + max(int(attention_mask[rows, width:].sum(1).max()), 1)
            ids, mask, mine = input_ids[rows, :end], attention_mask[rows, :end], inverse[rows]
            logits = last.index_select(0, mine)
            if end > width + 1:
                for layer, (keys, values) in zip(cache.layers, states, strict=True):
                    layer.keys, layer.values = keys.index_select(0, mine), values.index_select(0, mine)
                logits = torch.cat([logits, model(
                    input_ids=ids[:, width:-1], attention_mask=mask[:, :-1], past_key_values=cache
                ).logits], 1)  # fmt: skip
            figures = self._figures(logits, ids[:, width:], mask[:, width:])
            parts.append([nn.functional.pad(figure, (0, width + count - end)) for figure in figures])
        back = order.argsort()
        return tuple(torch.cat(figures).index_select(0, back) for figures in zip(*parts, strict=True))

    def _figures(self, logits, ids, mask):
        if not self.head:
            return selective_log_softmax_and_entropy(
                logits, ids, self._entropy_bonus_enabled, self.temperature, mask
            )
        rows = mask.bool()  # here `logits` are hidden states
        found = HeadLogps.apply(logits[rows], self.head.weight, ids[rows], self.temperature)
        return tuple(f.new_zeros(mask.shape).masked_scatter(rows, f) for f in found)


def together(parts: list[dict]) -> list[dict]:
    """The micro-batches of one optimizer step with the rows of each prompt next to each other."""
    size = len(parts[0]["prompt_ids"])
    rows = {
        name: torch.cat([part[name] for part in parts])
        for name, value in parts[0].items()
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == size
    }
    order = distinct(rows["prompt_ids"], rows["prompt_mask"])[2].argsort(stable=True)
    split = {name: value[order].split(size) for name, value in rows.items()}
    return [part | {name: split[name][i] for name in rows} for i, part in enumerate(parts)]


def _obstacle(trainer) -> str | None:
    """The reason why only GRPOTrainer's own code can be used; None if there is none."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    modules, words = list(model.modules()), ("dropout", "layerdrop", "jitter")
    rates = [v for module in modules for k, v in vars(module).items() if any(word in k for word in words)]
    rates += [module.p for module in modules if isinstance(module, nn.Dropout)]
    rope = str([getattr(module, "rope_type", "") for module in modules])  # rope_type is a dict in some models
    checkpointing = trainer.args.gradient_checkpointing or model.is_gradient_checkpointing
    found = {
        "vLLM generates the completions": trainer.use_vllm,
        "Unsloth has a trainer of its own": "unsloth" in sys.modules,
        "transformers generates with continuous batching": trainer.use_transformers_continuous_batching,
        "several processes share the work": trainer.accelerator.num_processes > 1 or trainer.args.n_gpu > 1,
        "the model is spread over several devices": len({weight.device for weight in model.parameters()}) > 1,
        "the model takes images": trainer._is_vlm,
        "the policy uses tools": bool(trainer.tools),
        "gradient checkpointing drops the cache of a prompt": checkpointing,
        "the rotary frequencies depend on the longest sequence": "dynamic" in rope or "longrope" in rope,
        "the model has dropout": any(isinstance(rate, float) and rate > 0 for rate in rates),
        "use_liger_kernel computes the log-probabilities": trainer.use_liger_kernel,
        "the loss of the model's router needs all tokens": trainer.aux_loss_enabled,
        "the adapter cannot be merged exactly": not mergeable(model),
        "the model keeps no cache that can be shared": not shareable(model),
    }
    return next((reason for reason, holds in found.items() if holds), None)
