from .accuracy import evaluate as evaluate
from .accuracy import evaluate_tests as evaluate_tests
from .accuracy import sample_groups as sample_groups
from .checks import check_groups as check_groups
from .checks import check_rewards as check_rewards
from .checks import flaw_table as flaw_table
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .difficulty import keep_by_difficulty as keep_by_difficulty
from .difficulty import pass_rates as pass_rates
from .proof import Proof as Proof
from .proof import prove as prove
from .reflection import (
    count_checks as count_checks,
)
from .reflection import (
    read_reflection as read_reflection,
)
from .reflection import (
    rescue_rates as rescue_rates,
)
