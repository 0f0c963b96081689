"""Predict what a recipe needs on a card, GB by part and hours, before anything is downloaded.

`r1nb plan` prints it. The formula of each part is in machine/memory.py.
"""

import contextlib
import dataclasses
import time

from r1nb.errors import UserError
from r1nb.machine import memory
from r1nb.machine.cards import speed_of
from r1nb.machine.configs import check_configs
from r1nb.machine.engine import compute_dtype, prepare_unsloth
from r1nb.machine.hardware import GB, Machine, smaller_recipe, suggest_recipe, this_machine
from r1nb.machine.known_models import published_config
from r1nb.machine.model_files import load_config
from r1nb.processes import processes
from r1nb.recipes.recipe import build_recipe

CONTEXT = 1e9  # CUDA context or libraries, and what the allocator wastes: an allowance, not a formula
# Three published GRPO steps of Unsloth (Llama-3.1-8B and Qwen2.5-3B on a T4, Mistral-7B on a 4090) reached
# 9 to 16 % of the speed that the two figures of cards.CARDS allow.
EFFICIENCY = (0.09, 0.16)
# Without a GPU: the share of a large product's speed that sampling and training reach, measured with
# Qwen2.5-0.5B on two cores; the share of their maximum length that its completions have; and the least number
# of parameters for which matrix products, and not Python, take the time.
CPU_EFFICIENCY, CPU_LENGTHS, CPU_LEAST = 0.38, (0.45, 0.65), 1e8
# Settings to lower, in this order, if a recipe does not fit, and the least value of each.
LOWERED = {
    "eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "max_completion_length": 64,
    "gpu_memory_utilization": 0.1,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """GB of each part during sampling and during training; the larger sum is the peak.

    completions: number of full-length completions that the KV cache holds at once. step_seconds: (best case,
    worst case), if completions have certain `lengths`; None for a card that is not in cards.CARDS, and for a
    tiny model on a CPU.
    """

    card: str
    card_gb: float
    sampling: dict[str, float]
    training: dict[str, float]
    completions: int
    step_seconds: tuple[float, float] | None
    steps: int
    batch: int  # completions a step, in one process
    lengths: str = "have the maximum length"

    @property
    def peak_gb(self) -> float:
        return max(sum(self.sampling.values()), sum(self.training.values()))

    @property
    def fits(self) -> bool:
        return self.peak_gb <= self.card_gb and self.completions >= 1

    def __str__(self) -> str:
        import pandas

        table = pandas.DataFrame({"samples": self.sampling, "trains": self.training})
        table.loc["together"] = table.sum()
        table.columns.name = "GB held while it"
        text = table.to_string(na_rep="-", float_format="{:.2f}".format)
        text += (
            f"\nThe peak is {self.peak_gb:.2f} GB; {self.card} has {self.card_gb:.0f} GB. "
            f"The cache holds {self.completions} completions of full length at once."
        )
        n = processes()
        text += f"\nA step takes {n * self.batch:,} completions"
        text += f", {self.batch} in each of {n} processes" * (n > 1)
        text += f", and the {self.steps:,} steps {n * self.batch * self.steps:,}."
        if self.step_seconds:
            low, high = self.step_seconds
            text += (
                f"\nA step will take {low:.0f} to {high:.0f} s if completions {self.lengths}, "
                f"and the training {self.duration}. Evaluations come on top."
            )
        return text

    @property
    def duration(self) -> str:
        """The time of all steps, as in "5 to 9 hours"; step_seconds must not be None."""
        low, high = (seconds * self.steps for seconds in self.step_seconds)
        unit, seconds = ("minutes", 60) if high < 2 * 3600 else ("hours", 3600)
        return f"{low / seconds:.0f} to {high / seconds:.0f} {unit}"


def plan_run(recipe, machine: Machine | None = None, config=None) -> Plan:
    """The plan of a recipe on a machine (default: this one); raises UserError if it cannot fit.

    `config` is the model's transformers config. If it is None, it is known for the models that the recipes
    name; for others it is read from the model's folder or downloaded from the Hub (a few kilobytes).
    """
    machine, empty = machine or this_machine(), load_empty(recipe, config)
    plan = estimate(recipe, machine, empty)
    if not plan.fits:
        why = f"needs {plan.peak_gb:.1f} GB and {plan.card} has {plan.card_gb:.1f} GB"
        if plan.peak_gb <= plan.card_gb:
            why = f"leaves vLLM's cache on {plan.card} no room for a single completion"
        raise UserError(f"Recipe {recipe.name} {why}: {_remedy(recipe, machine, empty)}.")
    return plan


def load_empty(recipe, config=None):
    """A recipe's model and adapter from memory.empty_model; `config` as in plan_run."""
    prepare_unsloth(recipe.model)
    name = recipe.model.model_name
    return memory.empty_model(config or published_config(name) or load_config(name), recipe.lora)


def estimate(recipe, machine: Machine, empty) -> Plan:
    """The plan of a recipe, whether or not it fits; `empty` comes from load_empty."""
    model, grpo, lora = recipe.model, recipe.grpo, recipe.lora
    card_gb = machine.gpu_memory_gb if machine.gpu else machine.memory_gb
    width = 4 if (model.dtype or ("" if machine.gpu else compute_dtype(model))) == "float32" else 2
    unsloth, optimizer = model.engine == "unsloth", grpo.get("optim", "")
    length = recipe.data.max_prompt_length + grpo["max_completion_length"]
    weights = memory.weight_bytes(empty, model.load_in_4bit, width)
    config = empty.config.get_text_config()

    held = {"weights" + (" in 4-bit" if model.load_in_4bit else ""): weights}
    if lora:  # TRL casts an adapter on 4-bit weights to bfloat16
        number = 2 if model.load_in_4bit and not unsloth else 4
        held["adapter, its gradient and optimizer"] = memory.adapter_bytes(empty, number, optimizer)
    else:
        held |= memory.full_bytes(weights / width, width, optimizer, bool(grpo.get("beta")))
    held["CUDA context" if machine.gpu else "Python and PyTorch"] = CONTEXT
    server = grpo.get("use_vllm") and grpo.get("vllm_mode") == "server"
    completions = max(0 if server else recipe.batch_size, recipe.evaluation.eval_batch_size)
    completion = length * memory.kv_bytes(config, width)
    pool = completions * completion
    if model.fast_inference:  # vLLM takes its share of the card, whatever the batch
        held["vLLM's CUDA graphs"] = memory.graph_bytes(config)
        pool = max(0.0, model.gpu_memory_utilization * card_gb * GB - weights)
        completions = int(pool // max(1, completion))
    sampling = held | {"KV cache": pool}
    training = held | _training_bytes(recipe, config, length, width)
    if model.fast_inference and not model.unsloth_vllm_standby:
        training["KV cache"] = pool
    in_gb = [{name: part / GB for name, part in parts.items()} for parts in (sampling, training)]
    seconds = step_seconds(recipe, empty, machine, weights, length, completions)
    card, lengths = machine.gpu or "this machine", Plan.lengths
    if not machine.gpu:
        seconds = cpu_step_seconds(recipe, memory.weight_bytes(empty, False, 1), width)
        lengths = "have {:.0%} to {:.0%} of the maximum length".format(*CPU_LENGTHS)
    return Plan(card, card_gb, *in_gb, completions, seconds, grpo["max_steps"], recipe.batch_size, lengths)


def _training_bytes(recipe, config, length: int, width: int) -> dict[str, float]:
    """{part: bytes} that a forward and a backward pass add."""
    grpo, lora, unsloth = recipe.grpo, recipe.lora, recipe.model.engine == "unsloth"
    batch = grpo["per_device_train_batch_size"]
    inputs, layer, gradients = memory.activation_bytes(config, batch * length, lora.r if lora else 0, width)
    if unsloth:
        logits = memory.unsloth_logit_bytes(config, length)
    else:
        logits = memory.logit_bytes(config, batch * grpo["max_completion_length"])
    activations = config.num_hidden_layers * layer
    if (lora and lora.use_gradient_checkpointing) or grpo.get("gradient_checkpointing", True):
        # The logits are freed before the layers are recomputed one by one.
        kept = 2 if unsloth else config.num_hidden_layers  # Unsloth offloads the others to the CPU
        activations = kept * inputs + max(0, layer + gradients - logits)
    return {"logits": logits, "activations beside the logits": activations}


def step_seconds(recipe, empty, machine, weights, length, completions) -> tuple[float, float] | None:
    """(best, worst) seconds of a step, from the card's roofline (Williams et al. 2009) and EFFICIENCY.

    A wave is the completions that are sampled at once. For each token of a wave, sampling reads all weights
    and the KV cache so far. Training computes 6 N FLOPs a token (arXiv 2001.08361, section 2.1): forward 2 N,
    gradients of the inputs 2 N, recomputed forward 2 N. None for a card that is not in cards.CARDS.
    """
    if (speed := speed_of(machine)) is None:
        return None
    tflops, bandwidth = speed
    size, limit = recipe.batch_size, recipe.grpo["max_completion_length"]
    wave = max(1, min(size, completions))  # completions that are sampled at once
    cached = wave * length / 2 * memory.kv_bytes(empty.config.get_text_config(), 2)
    reading = -(-size // wave) * limit * (weights + cached) / (bandwidth * 1e9)
    parameters = memory.weight_bytes(empty, False, 1)
    computing = size * length * 6 * parameters / (tflops * 1e12)
    low, high = EFFICIENCY
    return (reading + computing) / high, (reading + computing) / low


def cpu_step_seconds(recipe, parameters: float, width: int) -> tuple[float, float] | None:
    """(best, worst) seconds of a step on this machine's processor, whose speed is measured in a moment.

    Each token of a completion takes 2 N FLOPs to sample and 6 N to train on (step_seconds), if the model has
    N parameters. None if N is below CPU_LEAST.
    """
    import torch

    if parameters < CPU_LEAST:
        return None
    dtype = torch.bfloat16 if width == 2 else torch.float32
    states, weights = torch.ones(256, 1024, dtype=dtype), torch.ones(4096, 1024, dtype=dtype)
    torch.nn.functional.linear(states, weights)
    seconds = []
    for _ in range(40):  # the best of them: a processor wakes up slowly, and may be busy for a moment
        begin = time.perf_counter()
        torch.nn.functional.linear(states, weights)
        seconds.append(time.perf_counter() - begin)
    speed = 2 * states.numel() * len(weights) / min(seconds)
    tokens = recipe.batch_size * recipe.grpo["max_completion_length"]
    low, high = (share * tokens * 8 * parameters / (CPU_EFFICIENCY * speed) for share in CPU_LENGTHS)
    return low, high


def _remedy(recipe, machine: Machine, empty) -> str:
    """The change with which the recipe fits: the first setting of LOWERED that suffices, lowered least."""
    for key, least in LOWERED.items():
        value = {**dict(recipe.model), **dict(recipe.evaluation), **recipe.grpo}[key]
        whole = isinstance(value, int)
        while value and value * (0.5 if whole else 0.9) >= least:
            value = value // 2 if whole else round(value * 0.9, 2)
            changes = {key: value}
            if key == "per_device_train_batch_size":  # the same completions a step, fewer at a time
                changes["gradient_accumulation_steps"] = recipe.batch_size // value
            if _suffice(recipe, changes, machine, empty):
                return "set " + " ".join(f"{k}={v}" for k, v in changes.items())
    if machine.gpu and _suffice(recipe, {"load_in_4bit": True}, machine, empty):
        return "set load_in_4bit=true"
    fitting, _ = suggest_recipe(machine)
    smaller = smaller_recipe(recipe.name) if recipe.name == fitting else fitting
    return f"take recipe={smaller}" if smaller else "choose a smaller model"


def _suffice(recipe, changes: dict, machine: Machine, empty) -> bool:
    """Whether the recipe with these changes fits, is valid, and keeps its batch size."""
    with contextlib.suppress(UserError):
        other = changed(recipe, changes)
        if other.batch_size == recipe.batch_size and estimate(other, machine, empty).fits:
            check_configs(other)
            return True
    return False


def changed(recipe, changes: dict):
    """The recipe with other values of these keys, checked again."""
    raw = recipe.model_dump()
    for key, value in changes.items():
        section = next(
            (name for name in ("model", "lora", "data", "evaluation") if key in (raw[name] or ())), "grpo"
        )
        raw[section][key] = value
    return build_recipe(raw)
