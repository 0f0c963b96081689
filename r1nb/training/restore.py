"""Restore what transformers, TRL and PyTorch do not restore from a checkpoint by themselves."""

import math
from pathlib import Path

from r1nb.machine.model_files import read_tensors


def restore_adapter(model, checkpoint: Path) -> None:
    """Load the trained adapter: with a KL term TRL adds an adapter "ref", and transformers loads only it."""
    if "ref" not in getattr(model, "peft_config", ()):
        return
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, read_tensors(checkpoint / "adapter_model.safetensors"), "default")


def restore_order(dataloader, args, state) -> None:
    """Draw the permutations of the finished epochs again, so that the next draw is the current epoch's."""
    import torch

    sampler = dataloader.batch_sampler
    while not hasattr(sampler, "num_samples"):
        sampler = getattr(sampler, "batch_sampler", None) or sampler.sampler
    an_epoch = max(1, math.ceil(len(dataloader) / args.gradient_accumulation_steps))
    for _ in range(state.global_step // an_epoch):
        torch.randperm(sampler.num_samples, generator=sampler.generator)


def let_gloo_resume() -> None:
    """Let PyTorch restore a checkpoint from "cpu:0", which is Accelerate's name for the CPU of a process."""
    import torch

    def restore(storage, location):
        return storage if str(location).startswith("cpu:") else None

    torch.serialization.register_package(5, lambda storage: None, restore)
