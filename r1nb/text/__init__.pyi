from .arithmetic import evaluate_expression as evaluate_expression
from .arithmetic import solve_countdown as solve_countdown
from .numbers import last_number as last_number
from .numbers import same_answer as same_answer
from .numbers import to_number as to_number
from .prompts import (
    LAYOUTS as LAYOUTS,
)
from .prompts import (
    REASONING as REASONING,
)
from .prompts import (
    THINK as THINK,
)
from .prompts import (
    Layout as Layout,
)
from .prompts import (
    format_prompt as format_prompt,
)
from .statistics import (
    maj_at_k as maj_at_k,
)
from .statistics import (
    mcnemar as mcnemar,
)
from .statistics import (
    mean_interval as mean_interval,
)
from .statistics import (
    pass_at_k as pass_at_k,
)
from .statistics import (
    wilson as wilson,
)
