"""Train one policy in several processes (accelerate launch), of which only the main one writes the run."""

import contextlib
import functools
import os


def processes() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


def main_only(write):
    """Decorate a method so that it runs in the main process only; it returns None."""

    @functools.wraps(write)
    def method(*args, **kwargs):
        if is_main():
            write(*args, **kwargs)

    return method


def from_main(make):
    """Call make() in the main process only, and return its result in all processes."""
    if processes() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([make() if is_main() else None])[0]


def leave() -> None:
    """End this process at once, unless it is the main process, which still has work to do.

    If such a process exits normally, PyTorch 2.13 aborts it about once in twenty times (gloo, "terminate
    called without an active exception", after Python has ended). The launcher then stops the main one too.
    """
    if not is_main():
        os._exit(0)


@contextlib.contextmanager
def whole_weights(weights):
    """A context in which each process holds these weights in full; outside it, ZeRO-3 gives each a share.

    All processes must enter it. Generation does not need it, since ZeRO-3 gathers the weights layer by layer.
    """
    shared = [w for w in weights if hasattr(w, "ds_id")]
    if not shared:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(shared):
        yield


def alone() -> dict[str, str]:
    """The environment variables for a process that trains alone, without those that the launcher set."""
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_", "TORCHELASTIC_", "MASTER_")
    return {key: value for key, value in os.environ.items() if not key.startswith(launched)}
