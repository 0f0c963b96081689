"""What this machine is, and which recipe it can run."""

import os
import platform
from dataclasses import dataclass
from importlib.util import find_spec

from r1nb.errors import UserError
from r1nb.machine.engine import needs_bitsandbytes, prepare_unsloth, require_unsloth
from r1nb.machine.refusals import check_card, check_download, check_login, why_no_cuda
from r1nb.paths import CHECKOUT, LAUNCH
from r1nb.processes import processes

GB = 1e9
# A run records the versions of these packages.
PACKAGES = ("r1nb", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "unsloth", "vllm",
            "bitsandbytes")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    cores: int
    memory_gb: float
    gpu: str | None = None
    gpu_memory_gb: float = 0.0
    capability: tuple[int, int] | None = None  # CUDA's compute capability; None: not known

    def __str__(self) -> str:
        text = f"{self.cores} CPU core{'s' * (self.cores > 1)}, {self.memory_gb:.0f} GB of memory"
        return f"{self.gpu} with {self.gpu_memory_gb:.0f} GB; {text}" if self.gpu else f"{text}, no CUDA GPU"


def this_machine() -> Machine:
    """The cores, memory and GPU of this machine; imports torch to find the GPU."""
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / GB
    if not torch.cuda.is_available():
        return Machine(cores, memory)
    properties = torch.cuda.get_device_properties(0)
    capability = torch.cuda.get_device_capability(0)
    return Machine(cores, memory, properties.name, properties.total_memory / GB, capability)


# The recipes from the smallest to the largest, with the least GB that a card for them reports. That can be
# less than the card's name says (T4: 15.8) or more (A100: 42).
LADDER = {
    "llama32-1b-16gb": 15.0,
    "llama31-8b-16gb": 15.0,
    "llama31-8b-24gb": 23.0,
    "llama31-8b-40gb": 41.0,
    "llama31-8b-80gb": 80.0,
    "llama31-8b-141gb": 145.0,
}


def suggest_recipe(machine: Machine) -> tuple[str, str]:
    """(recipe, reason) for a machine: the first recipe of the largest size that fits its card."""
    if not machine.gpu:
        return "tiny-cpu", why_no_cuda() or "without a GPU, the tiny policy learns in minutes"
    size = max((size for size in LADDER.values() if size <= machine.gpu_memory_gb), default=None)
    if size is None:
        return "tiny-cpu", f"the smallest GPU recipe is made for 16 GB; {machine.gpu} has less"
    first, *others = (name for name, needed in LADDER.items() if needed == size)
    also = f"; {others[0]} runs here too" if others else ""
    return first, f"made for a card like {machine.gpu}{also}"


def smaller_recipe(name: str) -> str | None:
    """The next smaller recipe in LADDER; None for the smallest, and for recipes that are not in LADDER."""
    names = list(LADDER)
    return names[names.index(name) - 1] if name in names[1:] else None


def require(recipe, machine: Machine) -> None:
    """Raise UserError if this machine, or the number of processes now running, does not suit the recipe.

    Called before anything is downloaded.
    """
    started, wanted, unsloth = processes(), recipe.model.processes, recipe.model.engine == "unsloth"
    name, plain = recipe.model.model_name, "engine=transformers fast_inference=false use_vllm=false"
    if wanted and wanted != started:
        server = ", each on a GPU, with vLLM on one more" if recipe.grpo.get("vllm_mode") == "server" else ""
        file = "data_parallel" if recipe.lora else "zero3"
        raise UserError(
            f"Recipe {recipe.name} trains in {wanted} processes{server}, but this run has {started}: "
            f"start it with accelerate launch --config_file {LAUNCH / file}.yaml --num_processes {wanted} "
            "-m r1nb.train and the same arguments (the README.md beside that file says more)."
        )
    if started > 1 and recipe.sft:
        raise UserError(f"sft is for one process and {started} are running: take it out of the recipe.")
    if started > 1 and unsloth:
        raise UserError(f"engine=unsloth is for one process and {started} are running: set {plain}.")
    if unsloth and not machine.gpu:
        if why := why_no_cuda():
            raise UserError(f"Recipe {recipe.name} needs a CUDA GPU: {why}.")
        raise UserError(
            f"Recipe {recipe.name} needs a CUDA GPU, and there is none: use recipe=tiny-cpu here, or plan it "
            f"for a card that is elsewhere (r1nb plan {recipe.name} --card a100-40)."
        )
    if unsloth and name.endswith(".gguf"):
        raise UserError(f"model_name = {name!r}: a GGUF file needs {plain} load_in_4bit=false.")
    check_card(recipe, machine)
    check_login(name)
    if unsloth:
        prepare_unsloth(recipe.model)
        require_unsloth(recipe.model)
    elif recipe.grpo.get("use_vllm") and find_spec("vllm") is None:
        raise UserError("use_vllm = True, and vllm is not installed: set use_vllm=false.")
    for key, section in (("optim", recipe.grpo), ("sft.optim", recipe.sft)):
        if not unsloth and needs_bitsandbytes(section) and find_spec("bitsandbytes") is None:
            raise UserError(f"{key} = {section['optim']!r} needs bitsandbytes: set {key}=adamw_torch.")
    check_download(name)


def environment() -> dict:
    """The environment that a run records: machine, package versions, and the commit if there is one."""
    import subprocess
    from importlib.metadata import distributions

    import torch

    commit = None
    if CHECKOUT and (CHECKOUT / ".git").exists():
        command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        commit = result.stdout.strip() or None
    return {
        "machine": str(this_machine()),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # others round sums differently
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {p.name: p.version for p in distributions() if p.name in PACKAGES},
        "commit": commit,
    }
