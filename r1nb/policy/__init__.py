"""The policy: a model that answers prompts, its adapter, and how both are saved."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
