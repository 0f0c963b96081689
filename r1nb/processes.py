"""Several processes that train one policy, as accelerate launch starts them; the first one writes the run."""

import contextlib
import functools
import os


def processes() -> int:
    """How many train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


def main_only(write):
    """A method that does nothing but in the main process."""

    @functools.wraps(write)
    def method(*args, **kwargs):
        if is_main():
            write(*args, **kwargs)

    return method


def from_main(make):
    """What make() returns in the main process, in all of them; the others do not call it."""
    if processes() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([make() if is_main() else None])[0]


def leave() -> None:
    """End this process at once, unless it is the main one, which still has work to do.

    In a usual exit PyTorch 2.13 aborts such a process about once in twenty (gloo, "terminate called without
    an active exception", after Python has ended), and the launcher then stops the main one too.
    """
    if not is_main():
        os._exit(0)


@contextlib.contextmanager
def whole_weights(weights):
    """Inside the block each process holds these weights in full; ZeRO-3 leaves it a share of them.

    All processes must enter it. Generating needs no such block: ZeRO-3 gathers layer by layer.
    """
    shared = [w for w in weights if hasattr(w, "ds_id")]
    if not shared:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(shared):
        yield


def alone() -> dict[str, str]:
    """The environment for a process that trains alone: without what the launcher has set."""
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_", "TORCHELASTIC_", "MASTER_")
    return {key: value for key, value in os.environ.items() if not key.startswith(launched)}
