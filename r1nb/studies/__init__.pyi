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
from .real_model import (
    draw_rates as draw_rates,
)
from .real_model import (
    parts_table as parts_table,
)
from .real_model import (
    read_answers as read_answers,
)
