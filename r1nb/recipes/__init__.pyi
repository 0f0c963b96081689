from .loading import (
    load_recipe as load_recipe,
)
from .loading import (
    recipe_names as recipe_names,
)
from .recipe import (
    Recipe as Recipe,
)
from .recipe import (
    build_recipe as build_recipe,
)
from .settings import Sampling as Sampling
