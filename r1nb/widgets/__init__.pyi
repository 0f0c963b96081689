from .ask import Ask as Ask
from .inspector import Inspector as Inspector
from .live import LiveView as LiveView
from .one_step import OneStep as OneStep
from .playgrounds import group_playground as group_playground
from .playgrounds import reward_playground as reward_playground
from .sample import SampleGroup as SampleGroup
