"""Load a dataset by its name, as rows {prompt, answer, question, solution}."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
