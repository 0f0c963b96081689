"""This computer: its hardware, what a recipe needs on it, and which libraries can be used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
