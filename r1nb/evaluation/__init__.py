"""Accuracy before and after training, and proof that what was saved is what was trained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
