from .evaluation.accuracy import evaluate as evaluate
from .evaluation.accuracy import evaluate_tests as evaluate_tests
from .evaluation.checks import check_groups as check_groups
from .evaluation.checks import check_rewards as check_rewards
from .evaluation.comparison import compare as compare
from .evaluation.difficulty import keep_by_difficulty as keep_by_difficulty
from .evaluation.proof import prove as prove
from .machine.configs import grpo_arguments as grpo_arguments
from .machine.configs import grpo_config as grpo_config
from .machine.configs import sft_config as sft_config
from .machine.fitting import choose_recipe as choose_recipe
from .machine.plan import plan_run as plan_run
from .paths import __version__ as __version__
from .policy.loading import (
    attach_lora as attach_lora,
)
from .policy.loading import (
    load_policy as load_policy,
)
from .policy.trained import load_trained as load_trained
from .recipes.loading import load_recipe as load_recipe
from .recipes.settings import Sampling as Sampling
from .runs.checkpoints import last_checkpoint as last_checkpoint
from .runs.run import Run as Run
from .tasks.rows import (
    drop_long_prompts as drop_long_prompts,
)
from .tasks.rows import (
    load_rows as load_rows,
)
from .tasks.rows import (
    load_split as load_split,
)
from .tasks.rows import (
    load_splits as load_splits,
)
from .training.attack import check_reward as check_reward
from .training.callbacks import Recorder as Recorder
from .training.callbacks import Validation as Validation
from .training.callbacks import Watchdog as Watchdog
from .training.resume import begin_run as begin_run
from .training.resume import resumable as resumable
from .training.stages import finish as finish
from .training.trainer import SharedPromptTrainer as SharedPromptTrainer
from .views.code import training_code as training_code
from .views.report import write_report as write_report
from .views.serving import serving_lines as serving_lines
from .widgets.inspector import Inspector as Inspector
from .widgets.live import LiveView as LiveView
