"""What the policy reads and writes: prompts, numbers, arithmetic, and the statistics of answers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
