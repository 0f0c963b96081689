from .attack import check_reward as check_reward
from .callbacks import Recorder as Recorder
from .callbacks import Validation as Validation
from .callbacks import Watchdog as Watchdog
from .loss import group_advantages as group_advantages
from .loss import grpo_loss as grpo_loss
from .one_step import GroupSteps as GroupSteps
from .one_step import advantages_of as advantages_of
from .one_step import group_of as group_of
from .rejection import sample_examples as sample_examples
from .resume import begin_run as begin_run
from .resume import resumable as resumable
from .stages import (
    finish as finish,
)
from .stages import (
    grpo_trainer as grpo_trainer,
)
from .stages import (
    sft as sft,
)
from .stages import (
    solution_examples as solution_examples,
)
from .trainer import SharedPromptTrainer as SharedPromptTrainer
