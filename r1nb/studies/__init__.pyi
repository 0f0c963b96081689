from .experiments import (
    arms_table as arms_table,
)
from .experiments import (
    draw_arms as draw_arms,
)
from .experiments import (
    draw_curves as draw_curves,
)
from .experiments import (
    read_results as read_results,
)
