from .code import training_code as training_code
from .html import Link as Link
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
from .serving import serving_lines as serving_lines
from .token_view import show_gains as show_gains
