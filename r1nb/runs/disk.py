"""Turn the error of a full disk into one sentence that says what the run keeps and how to go on."""

import errno
from contextlib import contextmanager

from r1nb.errors import UserError, first_line
from r1nb.machine.out_of_memory import causes
from r1nb.runs.checkpoints import last_checkpoint

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Parts of the messages of safetensors (in Rust), and of torch.save, which does not say why a write failed.
WORDS = ("No space left", "quota exceeded", "File too large", "PytorchStreamWriter", "unexpected pos")


@contextmanager
def full_disk_in_words(run):
    """Turn the error of a full disk inside the block into a UserError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_full(error):
            raise
        said = first_line(error)
    else:
        return
    step, _ = last_checkpoint(run)
    kept = f"its checkpoint of step {step}" if step else "no checkpoint yet"
    raise UserError(
        f"The disk of {run.folder} is full ({said:.120}): {run.label} keeps its records and {kept}; free "
        "some space, then run this again to resume."
    )


def is_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that the disk is full."""
    return any(
        getattr(cause, "errno", None) in FULL or any(word in str(cause) for word in WORDS)
        for cause in causes(error)
    )
