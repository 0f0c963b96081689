"""A model's files: where they are, what licence they have, and what is wrong if they cannot be read."""

import contextlib
import os
import re
from pathlib import Path

from r1nb.errors import UserError, did_you_mean, first_line
from r1nb.machine.known_models import OWNERS, SHAPES
from r1nb.paths import DATA


def locate(name: str) -> tuple[str, dict]:
    """(folder or name on the Hub, further arguments of from_pretrained) of a model."""
    if name in ("tiny-policy", "tiny-countdown"):
        return str(DATA / name), {}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model_name = {name!r}: there is no such file; check the path.")
        return str(path.parent), {"gguf_file": path.name}
    if (path.is_dir() or name.startswith((".", "/", "~"))) and not (path / "config.json").is_file():
        raise UserError(f"model_name = {name!r} is not a model folder: config.json is missing.")
    return (str(path) if path.is_dir() else name), {}


GATED = ("meta-llama/", "google/gemma")  # how the names of gated models begin
LICENCES = {
    "tiny-policy": "mit",
    "tiny-countdown": "mit",
    "llama-3.1": "llama3.1",
    "llama-3.2": "llama3.2",
    "qwen2.5-3b": "other",
    "qwen2.5-": "apache-2.0",
    "qwen3-": "apache-2.0",
    "gemma-3-": "gemma",
    "smollm3-": "apache-2.0",
    "phi-4-mini": "mit",
}


def licence(name: str) -> str:
    """A model's licence as the Hub abbreviates it: known by name, or read from its card, or "unknown"."""
    from huggingface_hub import ModelCard

    if known := next((what for part, what in LICENCES.items() if part in name.lower()), None):
        return known
    readme = Path(locate(name)[0]) / "README.md"
    with contextlib.suppress(Exception):  # a broken README must not keep an adapter from being saved
        if readme.is_file() and isinstance(found := ModelCard.load(readme).data.license, str):
            return found
    return "unknown"


def load_config(name: str):
    """The transformers config of a model, by name or folder; what is in the Hub's cache needs no network."""
    from transformers import AutoConfig

    path, options = locate(name)
    try:
        with contextlib.suppress(OSError):
            return AutoConfig.from_pretrained(path, local_files_only=True, **options)
        return AutoConfig.from_pretrained(path, **options)
    except Exception as error:  # the files may contain anything
        raise UserError(cannot_load(name, error)) from error


def read_tensors(file: Path) -> dict:
    """{name: tensor} of a safetensors file; raises ValueError if it is damaged or a number is not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
        spoilt = not_finite(tensors)  # not implemented for 8-bit floats
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(first_line(error)) from None
    if spoilt:
        raise ValueError(f"{spoilt} holds numbers that are not finite")
    return tensors


def not_finite(weights: dict) -> str:
    """The name of the first of {name: tensor} that holds NaN or infinity; "" if none does."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), "")


def gated(name: str, why: str) -> str:
    """What to do about a gated model, in one sentence that gives the reason `why`."""
    return (
        f"{name} is gated{why}: accept its licence at https://huggingface.co/{name} and set HF_TOKEN to a "
        f"token of this account, or take an open copy, such as model_name=unsloth/{name.rpartition('/')[2]}."
    )


def cannot_load(name: str, error: Exception) -> str:
    """Why a model cannot be loaded, and what to do, in one sentence."""
    missing = type(error).__name__ == "RepositoryNotFoundError"  # also for a 401 if nobody is logged in
    if not missing and re.search("gated|401|403", str(error)):
        return gated(name, " and the token in HF_TOKEN has no access" if os.environ.get("HF_TOKEN") else "")
    why = f"{name} cannot be loaded ({first_line(error)})"
    if not isinstance(error, OSError) or Path(locate(name)[0]).is_dir():
        return f"{why}: correct the model's files, download them again, or choose another model."
    owner, _, short = name.rpartition("/")
    return (
        f"{why}: it is neither a local folder nor available from the Hub"
        f"{did_you_mean(short, SHAPES if owner in OWNERS else ())} Check the name and the network; to work "
        "offline, set HF_HUB_OFFLINE=1, and model_name to a local folder or to a model in the Hub's cache."
    )
