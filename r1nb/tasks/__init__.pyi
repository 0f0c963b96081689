from .rows import (
    drop_long_prompts as drop_long_prompts,
)
from .rows import (
    load_rows as load_rows,
)
from .rows import (
    load_split as load_split,
)
from .rows import (
    load_splits as load_splits,
)
from .sources import SOURCES as SOURCES
from .sources import Source as Source
