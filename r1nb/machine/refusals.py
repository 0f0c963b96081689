"""What is refused before a download: a driver, a card, a login or a disk that a recipe cannot do with."""

import os
import re
import shutil
from pathlib import Path

from r1nb.errors import UserError
from r1nb.machine.engine import AMPERE
from r1nb.machine.known_models import published_config
from r1nb.machine.memory import empty_model, weight_bytes
from r1nb.machine.model_files import GATED, gated

TURING = (7, 5)  # vLLM 0.32 and PyTorch for CUDA 13 hold no kernels for older cards
DRIVERS = {"12": "525", "13": "580"}  # the least driver for each CUDA, from NVIDIA's release notes


def why_no_cuda() -> str:
    """Why PyTorch cannot use the NVIDIA card of this machine, and what helps; "" if there is no such card."""
    import torch

    if torch.cuda.is_available() or not os.path.exists("/dev/nvidia0"):
        return ""
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA: install PyPI's build of it"
    cuda = torch.version.cuda.split(".")[0]
    major, rest = divmod(torch._C._cuda_getDriverVersion(), 1000)  # 12040 means CUDA 12.4, and 0 no driver
    if major >= int(cuda):
        return "PyTorch finds a driver but no card: look at CUDA_VISIBLE_DEVICES and at what nvidia-smi says"
    here = f"the driver here is for CUDA {major}.{rest // 10}" if major else "there is no driver"
    least = DRIVERS.get(cuda, f"for CUDA {cuda}")
    return f"PyTorch's CUDA {cuda} wants driver {least} or newer, and {here}: update it, or {_older_cuda()}"


def check_card(recipe, machine) -> None:
    """Raise UserError if a library has no kernels for the card, or the recipe's bfloat16 is missing there.

    For a card that is elsewhere (cards.machine_with), the libraries of this machine do not matter.
    """
    import torch

    capability = machine.capability
    if capability is None or recipe.grpo.get("use_cpu"):
        return
    found = "{} has compute capability {}.{}".format(machine.gpu, *capability)
    built = re.findall(r"sm_(\d+)", " ".join(torch.cuda.get_arch_list()))
    kernels = [divmod(int(number), 10) for number in built]
    least = max([TURING] * (recipe.model.engine == "unsloth") + [min(kernels, default=(0, 0))])
    if capability < least and machine.memory_gb:
        needed = "the installed PyTorch, Unsloth and vLLM need {}.{}".format(*least)
        raise UserError(f"{found}, and {needed}: take another card, or {_older_cuda()}.")
    sections = {"dtype": (recipe.model.dtype, "float16"), "bf16": (recipe.grpo.get("bf16"), "false"),
                "sft.bf16": (recipe.sft.get("bf16"), "false")}  # fmt: skip
    for key, (value, instead) in sections.items():
        if capability < AMPERE and value in ("bfloat16", True):
            raise UserError(f"{key} = {value!r} needs 8.0 or more, and {found}: set {key}={instead}.")


def check_login(name: str) -> None:
    """Raise UserError if a model of the Hub needs a login and there is none."""
    from huggingface_hub import get_token

    if name.startswith(GATED) and not (Path(name).exists() or _cached_bytes(name) or get_token()):
        raise UserError(gated(name, ", and nobody is logged in"))


def check_download(name: str) -> None:
    """Raise UserError if a model of the Hub needs more disk than is free.

    Its size is known if its shape is: 2 bytes a parameter, in copies with 4 bits as in memory.weight_bytes.
    What is in the Hub's cache already is not downloaded again. It imports transformers.
    """
    from huggingface_hub import constants

    if config := published_config(name):
        cache = Path(constants.HF_HUB_CACHE)
        size = weight_bytes(empty_model(config), "bnb-4bit" in name, 2) - _cached_bytes(name)
        free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
        if size > free:
            why = f"{name} takes {size / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB free"
            raise UserError(f"{why}: free some, or set the environment variable HF_HOME to a larger disk.")


def _cached_bytes(name: str) -> int:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "blobs")
    return sum(file.stat().st_size for file in blobs.glob("*"))


def _older_cuda() -> str:
    """How to train with PyTorch's build for CUDA 12.6, which older drivers and cards run."""
    import torch

    version = torch.__version__.split("+")[0]
    install = f"install PyTorch {version} for CUDA 12.6 (pytorch.org says how)"
    return f"{install} and set engine=transformers fast_inference=false use_vllm=false load_in_4bit=false"
