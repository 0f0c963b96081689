"""What this machine is, and which recipe it can run.

python -m r1nb.hardware [RECIPE]      # refuses, in one sentence, what cannot run here
"""

import os
import platform
import sys
from dataclasses import dataclass

from r1nb.errors import UserError

GB = 1e9


@dataclass(frozen=True)
class Machine:
    cores: int
    memory_gb: float
    gpu: str | None = None
    gpu_memory_gb: float = 0.0

    def __str__(self) -> str:
        text = f"{self.cores} CPU cores, {self.memory_gb:.0f} GB of memory"
        if self.gpu:
            return f"{self.gpu} with {self.gpu_memory_gb:.0f} GB; {text}"
        return f"{text}, no CUDA GPU"


def this_machine() -> Machine:
    """Look at the machine; loads torch to ask for a GPU."""
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / GB
    if not torch.cuda.is_available():
        return Machine(cores, memory)
    properties = torch.cuda.get_device_properties(0)
    return Machine(cores, memory, properties.name, properties.total_memory / GB)


def suggest_recipe(machine: Machine) -> tuple[str, str]:
    """(recipe, reason) for a machine."""
    if machine.gpu_memory_gb >= 38:
        return "llama31-8b-a100", f"{machine.gpu} holds Llama-3.1-8B in 4-bit and vLLM together"
    if machine.gpu:
        return "tiny-cpu", f"the 8B recipes are made for 40 GB; {machine.gpu} has less"
    return "tiny-cpu", "without a GPU, the tiny policy learns in minutes"


def choose_recipe(name: str = "auto", **overrides):
    """The recipe called `name`, or for "auto" the one for this machine; says which and why."""
    from r1nb.recipe import load_recipe

    machine = this_machine()
    suggested, reason = suggest_recipe(machine)
    recipe = load_recipe(suggested if name == "auto" else name, **overrides)
    require(recipe, machine)
    print(f"This machine: {machine}.")
    why = f" ({reason})" if recipe.name == suggested else ""
    print(f"Recipe {recipe.name}: {recipe.about}{why}")
    return recipe


def require(recipe, machine: Machine) -> None:
    """Refuse a recipe that this machine cannot run, before anything is downloaded."""
    if recipe.model.engine == "unsloth" and not machine.gpu:
        raise UserError(
            f"Recipe {recipe.name} needs a CUDA GPU and this machine has none; "
            "use recipe=tiny-cpu here, or open the notebook on a GPU machine."
        )


def environment() -> dict:
    """What a run records of where it ran: versions, kind of machine, commit if there is one."""
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    from r1nb.paths import CHECKOUT

    names = [
        "r1nb",
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "accelerate",
        "unsloth",
        "vllm",
        "bitsandbytes",
    ]
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = None
    if CHECKOUT and (CHECKOUT / ".git").exists():
        command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        commit = result.stdout.strip() or None
    return {
        "machine": str(this_machine()),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
    }


if __name__ == "__main__":
    try:
        choose_recipe(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"r1nb: {error}")
