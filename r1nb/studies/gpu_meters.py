"""Measure a training on a GPU: seconds of each step, and peak memory. They also work without a GPU."""

import threading
import time

from r1nb.machine.hardware import GB


def step_clock(end: float):
    """A callback whose `seconds` are those of each step; the training ends before one that would end
    later than `end`, a time of time.monotonic().

    TRL's own step_time leaves out the optimizer, and on a GPU what is still being computed.
    """
    import torch
    from transformers import TrainerCallback

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Clock(TrainerCallback):
        def __init__(self):
            self.seconds, self.begin = [], 0.0

        def on_step_begin(self, args, state, control, **kwargs):
            self.begin = now()

        def on_step_end(self, args, state, control, **kwargs):
            self.seconds.append(now() - self.begin)
            if time.monotonic() + self.seconds[-1] > end:
                control.should_training_stop = True

    return Clock()


def peak_memory(action) -> dict:
    """Call `action`; {"peak_gb", "reserved_gb"} meanwhile, measured fifty times a second.

    With a card: of the card, by all processes, with the CUDA context; `reserved_gb` is PyTorch's own figure.
    Without one: of this process (its resident memory).
    """
    import psutil
    import torch

    here, process, ended = torch.cuda.is_available(), psutil.Process(), threading.Event()
    used = [0]

    def watch() -> None:
        while not ended.wait(0.02):
            free, total = torch.cuda.mem_get_info() if here else (0, process.memory_info().rss)
            used.append(total - free)

    threading.Thread(target=watch, daemon=True).start()
    if here:
        torch.cuda.reset_peak_memory_stats()
    action()
    ended.set()
    reserved = torch.cuda.max_memory_reserved() / GB if here else None
    return {"peak_gb": max(used) / GB, "reserved_gb": reserved}
