"""Prompts and replies, numbers and arithmetic in text, and the statistics of answers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
