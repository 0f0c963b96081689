"""Training with TRL's GRPOTrainer: stages, callbacks, alarms, resume and rejection sampling."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
