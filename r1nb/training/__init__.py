"""GRPO and what happens around it; the trainer is TRL's."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
