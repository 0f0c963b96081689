"""Write a model with random weights and the shape of a real one, so that nothing must be downloaded."""

import json
import shutil
from pathlib import Path

from r1nb.errors import UserError, first_line
from r1nb.machine.hardware import GB
from r1nb.machine.known_models import published_config
from r1nb.machine.memory import empty_model
from r1nb.machine.model_files import load_config
from r1nb.paths import DATA, write_json
from r1nb.runs.disk import is_full

INDEX = "model.safetensors.index.json"


def random_model(name: str, path: Path) -> None:
    """Write a model with the shape of `name` and random weights into a folder, unless it is there already.

    The layers are written one by one, since a machine with a small card may have less memory than the model,
    and a second call goes on after the last whole file. The tokenizer is the tiny policy's, with as many
    tokens as the model. Raises UserError if the disk is too small.
    """
    if is_complete(path):
        return
    config = published_config(name) or load_config(name)
    empty = empty_model(config)
    files = {}
    for weight, held in empty.named_parameters():  # tied weights once
        files.setdefault("-".join(weight.split(".")[:3]) + ".safetensors", {})[weight] = held.shape
    path.mkdir(parents=True, exist_ok=True)
    _check_disk(path, 2 * sum(weight.numel() for weight in empty.parameters()))
    try:
        _write_tokenizer(path, config.vocab_size)
        config.update({"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None, "dtype": "bfloat16"})
        config.max_position_embeddings = 8192
        config.architectures = [type(empty).__name__]
        config.save_pretrained(path)
        _write_weights(path, files)
    except Exception as error:
        if not is_full(error):
            raise
        shutil.rmtree(path, ignore_errors=True)
        raise UserError(f"The disk of {path} is full ({first_line(error)}): free some of it.") from None
    where = {weight: file for file, shapes in files.items() for weight in shapes}
    write_json(path / INDEX, {"metadata": {}, "weight_map": where})  # last: now the folder is complete


def is_complete(path: Path) -> bool:
    """Whether random_model has written all files of a folder."""
    return (path / INDEX).is_file()


def _check_disk(path: Path, size: int) -> None:
    """Raise UserError if so many bytes, less what is there already, do not fit on the disk."""
    missing = size - sum(file.stat().st_size for file in path.glob("*.safetensors"))
    free = shutil.disk_usage(path).free
    if missing > free:
        why = f"Random weights take {missing / GB:.1f} GB and {path} has {free / GB:.1f} GB free"
        raise UserError(f"{why}: free some, or name a folder on a larger disk.")


def _write_tokenizer(path: Path, size: int) -> None:
    tokenizer = json.loads((DATA / "tiny-policy" / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words |= {f"w{number}": number for number in range(len(words), size)}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    for file in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DATA / "tiny-policy" / file, path)


def _write_weights(path: Path, files: dict[str, dict]) -> None:
    """Write random weights, {file: {name: shape}}; a file that is there is not written again."""
    import torch
    from safetensors.torch import save_file

    largest = max(shape.numel() for shapes in files.values() for shape in shapes.values())
    noise, partial = torch.randn(largest).bfloat16() * 0.02, path / "partial"
    for file, shapes in files.items():
        if (path / file).is_file():
            continue
        weights = {name: noise[: shape.numel()].view(shape).clone() for name, shape in shapes.items()}
        weights |= {name: torch.ones_like(w) for name, w in weights.items() if w.dim() == 1}  # of norms
        save_file(weights, partial, {"format": "pt"})
        partial.replace(path / file)
