from .checkpoints import last_checkpoint as last_checkpoint
from .run import Run as Run
