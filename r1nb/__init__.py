"""Train your own R1-like reasoner in a notebook, on one GPU, or on none.

Importing r1nb loads neither torch nor unsloth: heavy imports happen where they are used.
"""

__version__ = "0.1.0"
