"""Out of memory: one sentence says what to lower and what is kept, and the memory is given back."""

import textwrap
import traceback
from contextlib import contextmanager

from r1nb.errors import UserError, first_line
from r1nb.machine.hardware import smaller_recipe

# What the libraries say: PyTorch (CUDA, CPU), cuBLAS, bitsandbytes, and vLLM's start and cache.
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
    """Turn a lack of memory inside the block into one UserError, and free what the block held.

    `remedy` says what to lower. The kernel can go on, and the `run`'s folder stays as it was.
    """
    try:
        yield
        return
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):  # a UserError says it already
            raise
        said = textwrap.shorten(first_line(error), 160, placeholder="...")
        for cause in _causes(error):  # their frames hold the tensors of the step that failed
            traceback.clear_frames(cause.__traceback__)
            cause.__traceback__ = None
    from accelerate.utils import release_memory

    release_memory()
    kept = ""
    if run is not None:
        last = run.checkpoints()
        kept = f" The run folder {run.label} is intact" + (f", with checkpoint-{last[-1]}." if last else ".")
    raise UserError(f"Out of memory ({said}): {remedy}, after a restart of the kernel.{kept}")


def remedy_for(name: str, grpo: dict) -> str:
    """What to lower where a recipe, by its name and its section `grpo`, is too large for the machine."""
    smaller = smaller_recipe(name)
    remedy = f"take recipe {smaller!r}" if smaller else "lower max_completion_length"
    if grpo["per_device_train_batch_size"] > grpo.get("num_generations", 8):
        return f"{remedy}, or lower per_device_train_batch_size and raise gradient_accumulation_steps as much"
    return remedy + (f", or lower max_completion_length = {grpo['max_completion_length']}" if smaller else "")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a lack of memory."""
    return any(
        isinstance(cause, MemoryError) or any(word in str(cause) for word in WORDS)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error, what caused it, what caused that, each once."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen
