"""GPUs by name, with their memory and speed, so that a recipe can be planned for a card that is elsewhere."""

import re

from r1nb.errors import UserError, did_you_mean
from r1nb.machine.hardware import Machine

# What CUDA calls the card, and the GB and compute capability that it reports; from NVIDIA's data sheets:
# TFLOP/s of dense 16-bit matrix products, and memory bandwidth in GB/s.
CARDS = {
    "t4": ("Tesla T4", 15.8, (7, 5), 65, 320),
    "l4": ("NVIDIA L4", 23.6, (8, 9), 121, 300),
    "a10g": ("NVIDIA A10G", 23.7, (8, 6), 70, 600),
    "3090": ("NVIDIA GeForce RTX 3090", 25.3, (8, 6), 71, 936),
    "4090": ("NVIDIA GeForce RTX 4090", 25.3, (8, 9), 165, 1008),
    "a100-40": ("NVIDIA A100-SXM4-40GB", 42.4, (8, 0), 312, 1555),
    "l40s": ("NVIDIA L40S", 47.7, (8, 9), 362, 864),
    "a100-80": ("NVIDIA A100-SXM4-80GB", 85.0, (8, 0), 312, 2039),
    "h100": ("NVIDIA H100 80GB HBM3", 85.0, (9, 0), 989, 3350),
    "h200": ("NVIDIA H200", 150.0, (9, 0), 989, 4800),
}


def machine_with(card: str) -> Machine:
    """A machine with the card of this name, or with one of so many GB; raises UserError for other texts."""
    if found := CARDS.get(card.lower()):
        name, gb, capability, *_ = found
        return Machine(1, 0.0, name, gb, capability)
    if number := re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:gb)?", card.lower()):
        return Machine(1, 0.0, "the card", float(number[1]))
    raise UserError(
        f"Unknown card {card!r}{did_you_mean(card, CARDS)} Cards: {', '.join(CARDS)}, or a number of GB."
    )


def speed_of(machine: Machine) -> tuple[float, float] | None:
    """(TFLOP/s, GB/s) of a machine's card; None if it is not in CARDS."""
    cards = [
        (abs(gb - machine.gpu_memory_gb), tflops, bandwidth)
        for name, (_, gb, _, tflops, bandwidth) in CARDS.items()
        if re.search(rf"\b{name.split('-')[0]}\b", machine.gpu or "", re.IGNORECASE)
    ]
    return min(cards)[1:] if cards else None
