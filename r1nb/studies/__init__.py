"""Questions about r1nb itself: what a run costs, and what experiments showed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
