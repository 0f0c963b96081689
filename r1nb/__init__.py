"""Train your own R1-like reasoner in a notebook, on one GPU or on a CPU.

The notebooks import what they use from here: `from r1nb import load_recipe, load_policy`. A module is
imported only when one of its names is first used. So `import r1nb` does not import torch or trl: Unsloth must
be imported before them.
"""

import lazy_loader

from r1nb.paths import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
