from .export import save_gguf as save_gguf
from .export import save_merged as save_merged
from .loading import attach_lora as attach_lora
from .loading import load_policy as load_policy
from .policy import Completion as Completion
from .policy import Policy as Policy
from .trained import load_trained as load_trained
