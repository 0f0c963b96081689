"""Train your own R1-like reasoner in a notebook, on one GPU, or on none.

What the notebooks use, by name: `from r1nb import load_recipe, load_policy`. Each module is imported when a
name of it is first used, so that importing r1nb loads neither torch nor trl: Unsloth must come before them.
"""

import lazy_loader

from r1nb.paths import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
