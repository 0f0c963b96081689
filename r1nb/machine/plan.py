"""What a recipe will need on a card: gigabytes by part, and minutes, before anything is downloaded.

python -m r1nb.machine.plan RECIPE      # or why it cannot run here

The formula of each part stands in machine/memory.py.
"""

import contextlib
import dataclasses
import re

from r1nb.errors import UserError, run_main
from r1nb.machine.hardware import GB, Machine, recipe_for, require, suggest_recipe, this_machine
from r1nb.machine.memory import (
    activation_bytes,
    adapter_parameters,
    full_bytes,
    graph_bytes,
    kv_bytes,
    logit_bytes,
    unsloth_logit_bytes,
    weight_bytes,
)
from r1nb.machine.model_files import load_config
from r1nb.processes import processes
from r1nb.recipes.recipe import build_recipe

CONTEXT = 1e9  # CUDA context or libraries, and what the allocator wastes: an allowance, not a formula
# Of NVIDIA's data sheets: TFLOP/s of dense 16-bit matrices, and GB/s of the memory.
CARDS = {"T4": (65, 320), "L4": (121, 300), "A10G": (70, 600), "3090": (71, 936),
         "4090": (165, 1008), "L40S": (362, 864), "A100": (312, 1555), "H100": (989, 3350),
         "H200": (989, 4800)}  # fmt: skip
# What three published GRPO steps of Unsloth took (Llama-3.1-8B and Qwen2.5-3B on a T4, Mistral-7B on a
# 4090) was 9 to 16 % of what those two figures allow.
EFFICIENCY = (0.09, 0.16)
# What to lower first where a recipe does not fit, and how far.
LOWERED = {
    "eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "max_completion_length": 64,
    "gpu_memory_utilization": 0.1,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """GB that each part takes while it samples and while it trains; the larger sum is the peak.

    completions: how many of full length the KV cache holds at once. step_seconds: at best and at worst;
    None for a card that is not in CARDS.
    """

    card: str
    card_gb: float
    sampling: dict[str, float]
    training: dict[str, float]
    completions: int
    step_seconds: tuple[float, float] | None
    steps: int
    batch: int  # completions a step, in one process

    @property
    def peak_gb(self) -> float:
        return max(sum(self.sampling.values()), sum(self.training.values()))

    @property
    def fits(self) -> bool:
        return self.peak_gb <= self.card_gb and self.completions >= 1

    def __str__(self) -> str:
        phases = (self.sampling, self.training)
        lines = [("GB held while it", "samples", "trains")]
        for name in {**self.sampling, **self.training}:
            lines.append((name, *(f"{phase[name]:.2f}" if name in phase else "-" for phase in phases)))
        lines.append(("together", *(f"{sum(phase.values()):.2f}" for phase in phases)))
        text = "\n".join(f"{name:<36}{samples:>9}{trains:>9}" for name, samples, trains in lines)
        text += (
            f"\nThe peak is {self.peak_gb:.2f} GB; {self.card} has {self.card_gb:.0f} GB. "
            f"The cache holds {self.completions} completions of full length at once."
        )
        if (n := processes()) > 1:
            text += f"\nA step takes {n * self.batch} completions, {self.batch} in each of {n} processes."
        if self.step_seconds:
            low, high = self.step_seconds
            minutes = [seconds * self.steps / 60 for seconds in self.step_seconds]
            text += (
                f"\nA step will take {low:.0f} to {high:.0f} s if completions are as long as they may be, "
                f"and {self.steps} steps {minutes[0]:.0f} to {minutes[1]:.0f} minutes."
            )
        return text


def plan_run(recipe, machine: Machine | None = None, config=None) -> Plan:
    """The plan of a recipe on a machine (this one); refuses, in one sentence, what cannot fit.

    `config` is the model's transformers config; without one it is read from the model's folder or the
    Hub, which is a few kilobytes.
    """
    machine = machine or this_machine()
    config = config or load_config(recipe.model.model_name)
    plan = estimate(recipe, machine, config)
    if not plan.fits:
        why = f"needs {plan.peak_gb:.1f} GB and {plan.card} has {plan.card_gb:.1f} GB"
        if plan.peak_gb <= plan.card_gb:
            why = f"leaves vLLM's cache on {plan.card} no room for a single completion"
        raise UserError(f"Recipe {recipe.name} {why}: {_remedy(recipe, machine, config)}")
    return plan


def estimate(recipe, machine: Machine, config) -> Plan:
    """The plan, whether or not it fits; `config` as plan_run has it."""
    model, grpo = recipe.model, recipe.grpo
    card = machine.gpu or "this machine"
    card_gb = machine.gpu_memory_gb if machine.gpu else machine.memory_gb
    width = 4 if (model.dtype or ("" if machine.gpu else "float32")) == "float32" else 2
    length = recipe.data.max_prompt_length + grpo["max_completion_length"]
    unsloth = model.engine == "unsloth"
    lora = recipe.lora
    checkpointing = (lora and lora.use_gradient_checkpointing) or grpo.get("gradient_checkpointing", True)
    server = grpo.get("use_vllm") and grpo.get("vllm_mode") == "server"

    weights = weight_bytes(config, model.load_in_4bit, width)
    optimizer = 2 if "8bit" in grpo.get("optim", "") else 8
    tokens = grpo["per_device_train_batch_size"] * length
    inputs, layer, gradients = activation_bytes(config, tokens, lora.r if lora else 0, width)
    logits = (unsloth_logit_bytes(config, length) if unsloth else
              logit_bytes(config, grpo["per_device_train_batch_size"] * grpo["max_completion_length"]))  # fmt: skip
    activations = config.num_hidden_layers * layer
    if checkpointing:  # the logits are gone when the layers are computed again, one by one
        kept = 2 if unsloth else config.num_hidden_layers  # Unsloth's others wait in the CPU's memory
        activations = kept * inputs + max(0, layer + gradients - logits)
    number = 2 if model.load_in_4bit and not unsloth else 4  # TRL casts an adapter on 4-bit weights
    held = {"weights" + (" in 4-bit" if model.load_in_4bit else ""): weights}
    if lora:
        held["adapter, its gradient and optimizer"] = adapter_parameters(config, lora) * (
            2 * number + optimizer
        )
    else:
        held |= full_bytes(weights / width, width, grpo.get("optim", ""), bool(grpo.get("beta")))
    held["CUDA context" if machine.gpu else "Python and PyTorch"] = CONTEXT
    key_values = kv_bytes(config, width)
    pool = max(0 if server else recipe.batch_size, recipe.evaluation.eval_batch_size) * length * key_values
    if model.fast_inference:  # vLLM takes its share of the card, whatever the batch
        held["vLLM's CUDA graphs"] = graph_bytes(config)
        pool = max(0.0, model.gpu_memory_utilization * card_gb * GB - weights)
    completions = int(pool / (length * key_values))
    sampling = held | {"KV cache": pool}
    training = held | {"logits": logits, "activations beside the logits": activations}
    if model.fast_inference and not model.unsloth_vllm_standby:
        training["KV cache"] = sampling["KV cache"]
    in_gb = [{name: part / GB for name, part in parts.items()} for parts in (sampling, training)]
    seconds = step_seconds(recipe, config, machine, weights, length, completions)
    return Plan(card, card_gb, *in_gb, completions, seconds, grpo["max_steps"], recipe.batch_size)


def step_seconds(recipe, config, machine, weights, length, completions) -> tuple[float, float] | None:
    """Seconds of a step, from the roofline of the card (Williams et al. 2009) and EFFICIENCY.

    Sampling reads all weights and the keys so far for each token of a wave of completions; training computes
    6 N FLOPs a token (arXiv 2001.08361, section 2.1: forward 2 N, to the inputs 2 N, recomputed 2 N).
    """
    name = next((name for name in CARDS if re.search(rf"\b{name}\b", machine.gpu or "")), None)
    if name is None:
        return None
    tflops, bandwidth = CARDS[name]
    size, limit = recipe.batch_size, recipe.grpo["max_completion_length"]
    wave = max(1, min(size, completions))  # completions that are sampled at once
    cached = wave * length / 2 * kv_bytes(config, 2)
    reading = -(-size // wave) * limit * (weights + cached) / (bandwidth * 1e9)
    parameters = weight_bytes(config, False, 1)
    computing = size * length * 6 * parameters / (tflops * 1e12)
    low, high = EFFICIENCY
    return (reading + computing) / high, (reading + computing) / low


def _remedy(recipe, machine: Machine, config) -> str:
    """Settings with which it fits: of the first of LOWERED that suffices, the largest value."""
    for key, least in LOWERED.items():
        value = {**dict(recipe.model), **dict(recipe.evaluation), **recipe.grpo}[key]
        whole = isinstance(value, int)
        while value and value * (0.5 if whole else 0.9) >= least:
            value = value // 2 if whole else round(value * 0.9, 2)
            changes = {key: value}
            if key == "per_device_train_batch_size":  # the same completions a step, fewer at a time
                changes["gradient_accumulation_steps"] = recipe.batch_size // value
            with contextlib.suppress(UserError):  # a value that the recipe does not allow
                changed = _with(recipe, changes)
                if changed.batch_size == recipe.batch_size and estimate(changed, machine, config).fits:
                    return f"set {' '.join(f'{k}={v}' for k, v in changes.items())}."
    four_bit = recipe.lora is not None and not recipe.model.load_in_4bit and machine.gpu
    return "choose a smaller model" + (", or load_in_4bit=true." if four_bit else ".")


def _with(recipe, changes: dict):
    """The recipe with other values, checked; raises UserError where they cannot be."""
    raw = recipe.to_dict()
    for key, value in changes.items():
        section = next((name for name in ("model", "evaluation") if key in raw[name]), "grpo")
        raw[section][key] = value
    return build_recipe(raw)


def main(name: str = "tiny-cpu") -> None:
    machine = this_machine()
    recipe = recipe_for(name, machine)
    require(recipe, machine)
    print(f"This machine: {machine}. Recipe {recipe.name}: {recipe.about}")
    suggested, reason = suggest_recipe(machine)
    if machine.gpu and suggested != recipe.name:
        print(f"For this GPU: make train RECIPE={suggested} ({reason}).")
    print(plan_run(recipe, machine))


if __name__ == "__main__":
    run_main(main)
