from .recipe import (
    Recipe as Recipe,
)
from .recipe import (
    build_recipe as build_recipe,
)
from .recipe import (
    load_recipe as load_recipe,
)
from .recipe import (
    recipe_names as recipe_names,
)
from .settings import Sampling as Sampling
