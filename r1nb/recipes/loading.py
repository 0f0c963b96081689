"""A recipe by its name or from a YAML file, with values replaced by the caller and by R1NB_SET."""

import os
import shlex
import tempfile
from pathlib import Path

import yaml

from r1nb.errors import UserError, did_you_mean
from r1nb.paths import RECIPES, runs_folder
from r1nb.recipes.recipe import Recipe, build_recipe
from r1nb.recipes.settings import OURS, RESERVED, OutputSettings, section_keys

SECTIONS = ("grpo", *OURS, "sft")  # a key of several is the first one's
WHOLE = ("rewards", "lora", "sft")  # sections that can be replaced as a whole, the last two by null


def recipe_names() -> list[str]:
    """The recipes that ship with r1nb."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name="tiny-cpu", /, **overrides) -> Recipe:
    """A shipped recipe by name, or a YAML file by path, with values replaced by key.

    `rewards` replaces them all: {name: weight}; lora=None and sft=None leave the section out. Where GRPO's
    sections and `sft` share a key, `sft.max_steps` means the latter.

    The environment variable R1NB_SET replaces values once more: R1NB_SET="max_steps=5 seed=2", and
    R1NB_SET="recipe=smollm2-135m" another recipe altogether.

    A run, or a run folder, gives the recipe as that run used it, whatever R1NB_SET says. Raises UserError
    for an unknown recipe or key, a value of the wrong type, and values that cannot go together.
    """
    of_run = Path(name).expanduser() / "recipe.yaml"
    if of_run.is_file():
        return build_recipe(_replace(_parse(of_run), overrides))
    name, from_outside = overrides.pop("recipe", name), environment_overrides()
    other = from_outside.pop("recipe", "auto")  # auto: see machine.hardware.choose_recipe
    name = os.fspath(name) if other == "auto" else str(other)
    raw = _replace(_read(name), overrides | from_outside)
    recipe = build_recipe(raw | {"name": Path(name).stem})
    check_writable(runs_folder(recipe.output.runs_dir))
    return recipe


def default_runs_dir() -> str:
    """The folder that recipes write runs into: R1NB_SET's, or that of the recipe it names, or else runs."""
    overrides = environment_overrides()
    name = overrides.pop("recipe", "auto")
    raw = _replace({} if name == "auto" else _read(str(name)), overrides)
    return str((raw.get("output") or {}).get("runs_dir", OutputSettings().runs_dir))


def environment_overrides() -> dict:
    """What R1NB_SET replaces: {key: value}."""
    text = os.environ.get("R1NB_SET", "")
    try:
        words = shlex.split(text)
    except ValueError:
        raise UserError(f"R1NB_SET = {text!r} cannot be read: a quote is not closed.") from None
    return read_overrides(words, "R1NB_SET")


def read_overrides(words: list[str], source: str) -> dict:
    """{key: value} of words such as max_steps=5, each value read as YAML; `source` is named in errors."""
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{source} holds {word!r}; write key=value, as in max_steps=5.")
        try:
            pairs[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):  # the latter: 2024-99-99
            raise UserError(f"{source} holds {word!r}, whose value is no YAML: is a quote open?") from None
    return pairs


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be made in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"runs_dir = '{folder}' cannot be written ({error.strerror}); set another.") from None


def _read(name: str, below: tuple[str, ...] = ()) -> dict:
    """What a YAML file says, with what it takes over from the recipe that it is `like`."""
    if name in below:
        raise UserError(f"Recipe {name} is like itself: {' like '.join([*below, name])}.")
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        names = recipe_names()
        hint = did_you_mean(name, names) if path.parent == RECIPES else ": no such file."
        if name == "auto":
            hint = ": call choose_recipe('auto'), which looks at the machine, or name one."
        raise UserError(f"Unknown recipe {name!r}{hint} Recipes: {', '.join(names)}, or a .yaml file.")
    raw = _parse(path)
    base = _read(str(raw.pop("like")), (*below, name)) if "like" in raw else {}
    for section, values in base.items():
        mine = raw.setdefault(section, values)
        alone = section == "rewards" or (section == "sft" and not mine)  # an empty sft drops that of the base
        if not alone and isinstance(mine, dict) and isinstance(values, dict):
            raw[section] = values | mine
    return raw


def _parse(path: Path) -> dict:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # the latter: not UTF-8, or a date such as 2024-99-99
        raise UserError(f"Recipe {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(raw, dict):
        raise UserError(f"Recipe {path} holds no sections; see recipes/tiny-cpu.yaml.")
    return {"name": path.stem, **raw}


def _replace(raw: dict, overrides: dict) -> dict:
    """What YAML holds, with values replaced by key, sections as a whole first."""
    raw, places = raw | {key: value for key, value in overrides.items() if key in WHOLE}, _places()
    for name, value in overrides.items():
        if name in WHOLE:
            continue
        if name not in places:
            raise UserError(f"Unknown setting {name!r}{did_you_mean(name, places)}")
        section, key = places[name]
        if section == "lora" and raw.get(section, {}) is None:
            raise UserError(f"{key} = {value!r} is the adapter's, and this recipe has none (lora: null).")
        values = raw.get(section)
        if values is None or isinstance(values, dict):  # build_recipe refuses anything else
            raw[section] = (values or {}) | {key: value}
    return raw


def _places() -> dict[str, tuple[str, str]]:
    """(section, key) of every "learning_rate" and "sft.learning_rate"; GRPO's sections come first."""
    places = {}
    for section in reversed(SECTIONS):
        for key in {*section_keys(section), *RESERVED}:  # RESERVED: for build_recipe to refuse
            places[key] = places[f"{section}.{key}"] = (section, key)
    return places
