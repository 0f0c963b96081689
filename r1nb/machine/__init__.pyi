from .configs import check_configs as check_configs
from .configs import grpo_config as grpo_config
from .configs import sft_config as sft_config
from .hardware import Machine as Machine
from .hardware import choose_recipe as choose_recipe
from .hardware import this_machine as this_machine
from .plan import Plan as Plan
from .plan import plan_run as plan_run
