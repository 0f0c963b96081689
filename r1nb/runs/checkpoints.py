"""Find the last whole checkpoint of a run, from which the run can be resumed."""

import pickle
import zipfile
from pathlib import Path

from r1nb.errors import first_line
from r1nb.machine.model_files import read_tensors
from r1nb.runs.run import Run


def last_checkpoint(run: Run, say=lambda line: None) -> tuple[int, Path | None]:
    """(step, folder) of the last whole checkpoint, or (0, None); calls `say` for each one that is skipped."""
    for number in reversed(run.checkpoints()):
        folder = run.folder / f"checkpoint-{number}"
        if not (damage := find_damage(folder, number)):
            return number, folder
        say(f"{folder.name} is skipped: {damage}.")
    return 0, None


def find_damage(checkpoint: Path, step: int) -> str:
    """Say why a run cannot be resumed from a checkpoint; "" if it can.

    Each file is read: if the process was killed while it wrote a file, the sizes and checksums in that file
    are wrong. Each file is also loaded as Trainer loads it, and must have the entries that Trainer reads.
    """
    import torch
    from transformers.trainer_callback import TrainerState
    from transformers.trainer_pt_utils import safe_globals

    try:
        state = TrainerState.load_from_json(checkpoint / "trainer_state.json")
        if state.global_step != step:
            return f"its trainer_state.json is from step {state.global_step}"
        if not state.train_batch_size or "TrainerControl" not in state.stateful_callbacks:
            return "its trainer_state.json is incomplete"
        weights = [*checkpoint.rglob("adapter_model.safetensors"), *checkpoint.glob("model*.safetensors")]
        shares = [*checkpoint.glob("global_step*/*.pt")]  # DeepSpeed saves the optimizer here
        random_states = [*checkpoint.glob("rng_state*.pth")]
        if not weights or not random_states:
            return "rng_state.pth is missing" if weights else "its weights are missing"
        for file in weights:
            read_tensors(file)
        keys = dict.fromkeys(random_states, "python") | {checkpoint / "scheduler.pt": "last_epoch"}
        keys |= dict.fromkeys(shares, "") or {checkpoint / "optimizer.pt": "param_groups"}
        for file, key in keys.items():
            if damaged := zipfile.ZipFile(file).testzip():
                return f"{file.name} is damaged at {damaged}"
            with safe_globals():
                if key and key not in torch.load(file, "cpu", weights_only=True, mmap=True):
                    return f"{file.name} has no entry {key!r}"
    except FileNotFoundError as error:
        return f"{Path(error.filename or checkpoint).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError,
            zipfile.BadZipFile) as error:  # fmt: skip
        return f"it is incomplete or damaged ({first_line(error)})"
    return ""
