"""Turn an out-of-memory error into one sentence (what to lower, what is kept), and free the memory."""

import textwrap
import traceback
from contextlib import contextmanager

from r1nb.errors import UserError, first_line
from r1nb.machine.hardware import smaller_recipe

# Parts of the messages of PyTorch (CUDA, CPU), cuBLAS, bitsandbytes, and vLLM (its start and its cache).
WORDS = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "is less than desired",
    "No available memory for the cache blocks",
    "larger than the available KV cache memory",
)


@contextmanager
def out_of_memory_in_words(remedy: str, run=None):
    """Turn an out-of-memory error inside the block into a UserError, and free what the block held.

    `remedy` says what to lower. The kernel stays alive, and the folder of `run` is not changed.
    """
    try:
        yield
        return
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):  # a UserError is clear already
            raise
        said = textwrap.shorten(first_line(error), 160, placeholder="...")
        for cause in causes(error):  # the frames hold the tensors of the failed step
            traceback.clear_frames(cause.__traceback__)
            cause.__traceback__ = None
    from accelerate.utils import release_memory

    release_memory()
    kept = ""
    if run is not None:
        last = run.checkpoints()
        kept = f" The run folder {run.label} is intact" + (f", with checkpoint-{last[-1]}." if last else ".")
    raise UserError(f"Out of memory ({said}): restart the kernel and {remedy}.{kept}")


def remedy_for(name: str, grpo: dict) -> str:
    """What to lower if a recipe, given by name and section `grpo`, is too large for the machine."""
    smaller = smaller_recipe(name)
    remedy = f"take recipe {smaller!r}" if smaller else "lower max_completion_length"
    if grpo["per_device_train_batch_size"] > grpo.get("num_generations", 8):
        batch = "lower per_device_train_batch_size and raise gradient_accumulation_steps by the same factor"
        return f"{remedy}, or {batch}"
    return remedy + (f", or lower max_completion_length = {grpo['max_completion_length']}" if smaller else "")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, means that memory ran out."""
    return any(
        isinstance(cause, MemoryError) or any(word in str(cause) for word in WORDS) for cause in causes(error)
    )


def causes(error: BaseException | None) -> list[BaseException]:
    """An error and the chain of its causes, each once."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen
