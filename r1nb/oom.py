"""Out of memory, in one sentence: what to lower, what is safe, and the memory given back."""

import gc
import traceback
from contextlib import contextmanager

from r1nb.errors import UserError

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
def out_of_memory_in_words(recipe, run=None):
    """Turn a lack of memory inside the block into one UserError, and free what the block held.

    The run folder with its checkpoints stays as it was; the kernel can go on.
    """
    try:
        yield
    except UserError:  # one further in has said it
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sentence = _sentence(error, recipe, run)
        _let_go(error)
    else:
        return
    free_memory()
    raise UserError(sentence)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a lack of memory."""
    seen = []
    while error is not None and error not in seen:
        if isinstance(error, MemoryError) or any(word in str(error) for word in WORDS):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of an error and of its causes, which hold the tensors of the step that failed."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _sentence(error: Exception, recipe, run) -> str:
    from r1nb.hardware import smaller_recipe

    smaller = smaller_recipe(recipe.name)
    remedy = f"take recipe {smaller!r}" if smaller else "lower max_completion_length"
    if recipe.grpo["per_device_train_batch_size"] > recipe.group_size:
        remedy += ", or lower per_device_train_batch_size and raise gradient_accumulation_steps as much"
    elif smaller:
        remedy += f", or lower max_completion_length = {recipe.grpo['max_completion_length']}"
    kept = ""
    if run is not None:
        last = run.checkpoints()
        kept = f" The run folder {run.label} is intact" + (f", with checkpoint-{last[-1]}." if last else ".")
    return f"Out of memory ({_first_line(error)}): {remedy}, after a restart of the kernel.{kept}"


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 160 else line[:157] + "..."
