from .ask import Ask as Ask
from .code import training_code as training_code
from .html import Link as Link
from .inspector import Inspector as Inspector
from .live import LiveView as LiveView
from .one_step import OneStep as OneStep
from .playgrounds import group_playground as group_playground
from .playgrounds import reward_playground as reward_playground
from .plots import (
    length_histogram as length_histogram,
)
from .plots import (
    pass_curves as pass_curves,
)
from .plots import (
    png as png,
)
from .plots import (
    training_curves as training_curves,
)
from .report import write_report as write_report
from .sample import SampleGroup as SampleGroup
from .serving import serving_lines as serving_lines
from .token_view import show_gains as show_gains
