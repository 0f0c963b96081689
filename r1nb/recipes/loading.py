"""Load a recipe by name or from a YAML file; the caller and R1NB_SET can replace its values."""

import os
import shlex
import tempfile
from pathlib import Path

import yaml

from r1nb.errors import UserError, did_you_mean
from r1nb.paths import RECIPES, runs_folder, user_path
from r1nb.recipes.recipe import Recipe, build_recipe, salvage_recipe
from r1nb.recipes.settings import OURS, RESERVED, OutputSettings, section_keys, unknown_key
from r1nb.rewards.own import beside
from r1nb.tasks.sources import check_dataset

SECTIONS = ("grpo", *OURS, "sft")  # a key in several sections means the first of them
WHOLE = ("rewards", "lora", "sft")  # sections that can be replaced as a whole, the last two also by null


def recipe_names() -> list[str]:
    """The names of the recipes that ship with r1nb."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name="tiny-cpu", /, **overrides) -> Recipe:
    """A shipped recipe by name, or a YAML file by path, with values replaced by key.

    `rewards` ({name: weight}) replaces all rewards; lora=None and sft=None leave that section out. If `sft`
    shares a key with another section, max_steps means the other section's and `sft.max_steps` that of sft.

    The environment variable R1NB_SET replaces values after the caller: R1NB_SET="max_steps=5 seed=2".
    R1NB_SET="recipe=tiny-r1" loads another recipe instead.

    `name` names the runs: with name="first try" their folders are first-try-001 and so on, and only a run of
    this name is resumed. Without it, or with None, they have the name of the recipe.

    If `name` is a run or a run folder, the recipe is the one that this run used, and R1NB_SET is ignored.
    Raises UserError for an unknown recipe or key, a value of the wrong type, values that contradict each
    other, and a dataset that does not exist.
    """
    of_run = user_path(name) / "recipe.yaml"
    if of_run.is_file():
        return build_recipe(_replace(_parse(of_run), overrides))
    name, from_outside = overrides.pop("recipe", name), environment_overrides()
    other = from_outside.pop("recipe", "auto")  # auto: see machine.fitting.choose_recipe
    name = os.fspath(name) if other == "auto" else str(other)
    raw = _replace(_read(name), overrides | from_outside)
    recipe = build_recipe(raw)
    check_dataset(recipe.data.dataset)
    check_writable(runs_folder(recipe.output.runs_dir))
    return recipe


def recipe_of_run(run) -> Recipe:
    """The recipe of a run, for sampling from it: what is unknown here is left out, and that is said.

    `load_recipe(run)` refuses such a recipe instead, because another run would be trained without that.
    """
    default = build_recipe(_read("tiny-cpu")).model_dump()
    return salvage_recipe(run.recipe, default, f"The recipe of {run.label}")


def default_runs_dir() -> str:
    """The folder for runs: from R1NB_SET, else from the recipe that R1NB_SET names, else "runs"."""
    overrides = environment_overrides()
    name = overrides.pop("recipe", "auto")
    raw = _replace({} if name == "auto" else _read(str(name)), overrides)
    return str((raw.get("output") or {}).get("runs_dir", OutputSettings().runs_dir))


def environment_overrides() -> dict:
    """The values that R1NB_SET sets: {key: value}."""
    text = os.environ.get("R1NB_SET", "")
    try:
        words = shlex.split(text)
    except ValueError:
        raise UserError(f"R1NB_SET = {text!r} cannot be read: close the open quote.") from None
    return read_overrides(words, "R1NB_SET")


def read_overrides(words: list[str], source: str) -> dict:
    """{key: value} from words like max_steps=5; errors name `source`.

    Values are read as YAML, except a name: name=5 and name=no are texts.
    """
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{source} holds {word!r}; write key=value, as in max_steps=5.")
        try:
            pairs[key] = value if key == "name" else yaml.load(value, _Loader)
        except (yaml.YAMLError, ValueError):  # ValueError: a date like 2024-99-99
            why = f"{source} holds {word!r}, whose value is not YAML"
            raise UserError(f"{why}: close any open quote or bracket.") from None
    return pairs


def check_writable(folder: Path) -> None:
    """Raise UserError if no file can be created in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = f"runs_dir = '{folder}' cannot be written to ({error.strerror})"
        raise UserError(f"{why}; set another folder.") from None


def _read(name: str, below: tuple[str, ...] = ()) -> dict:
    """The values of a YAML file, on top of those of the recipe that its key `like` names."""
    if name in below:
        chain = " like ".join([*below, name])
        raise UserError(f"Recipe {name} is like itself ({chain}): name another recipe in `like`.")
    path = user_path(name if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml")
    if not path.is_file():
        names = recipe_names()
        hint = did_you_mean(name, names) if path.parent == RECIPES else ": no such file."
        if name == "auto":
            hint = ": call choose_recipe('auto'), which chooses for this machine, or name one."
        raise UserError(f"Unknown recipe {name!r}{hint} Recipes: {', '.join(names)}, or a .yaml file.")
    raw = _parse(path)
    for section in ("rewards", "why"):  # a reason stands under the name of its reward
        if values := raw.get(section):
            raw[section] = {beside(path, key): value for key, value in values.items()}
    base = _read(str(raw.pop("like")), (*below, name)) if "like" in raw else {}
    own = set(raw.get("why") or ())
    for section, values in base.items():
        mine = raw.setdefault(section, values)
        alone = section == "rewards" or (section == "sft" and not mine)  # an empty sft drops the base's sft
        if not alone and isinstance(mine, dict) and isinstance(values, dict):
            raw[section] = values | mine
    return _without_old_reasons(raw, base, own)


class _Loader(yaml.SafeLoader):
    """Refuse a mapping in which a key occurs twice; YAML would silently take the last value."""

    def construct_mapping(self, node, deep=False):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key.value in (other.value for other in keys[:number]):
                words = f"the key {key.value} occurs twice, delete one of them"
                raise yaml.constructor.ConstructorError(problem=words, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _parse(path: Path) -> dict:
    try:
        raw = yaml.load(path.read_bytes(), _Loader)  # UTF-8, or UTF-16 with its mark
    except (yaml.reader.ReaderError, UnicodeDecodeError) as error:
        said = f"at position {error.position}" if hasattr(error, "position") else error.reason
        raise UserError(f"Recipe {path} is not text in UTF-8 ({said}): save it again as UTF-8.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date like 2024-99-99
        raise UserError(f"Recipe {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(raw, dict):
        raise UserError(f"Recipe {path} holds no sections; see recipes/tiny-cpu.yaml.")
    return _check_sections(raw | {"name": path.stem if raw.get("name") is None else raw["name"]})


def _check_sections(raw: dict) -> dict:
    """The raw values of a recipe; raises UserError if a section is anything but a mapping or null."""
    for section in (*SECTIONS, "rewards", "why"):
        if not isinstance(value := raw.get(section), dict | None):
            raise UserError(f"{section} = {value!r}: must hold key: value lines.")
    return raw


def _replace(raw: dict, overrides: dict) -> dict:
    """The raw values of a recipe with overrides applied: first the name and whole sections, then keys."""
    before, places = raw, _places()
    named = {} if overrides.get("name") is None else {"name": overrides["name"]}
    raw = _check_sections(raw | named | {key: value for key, value in overrides.items() if key in WHOLE})
    for name, value in overrides.items():
        if name in (*WHOLE, "name"):
            continue
        if name not in places:
            section, _, key = name.rpartition(".")
            section = section if section in SECTIONS else ""
            known = section_keys(section) if section else {*places, "name"}
            raise UserError(f"Unknown setting {name!r}{unknown_key(section, key, known)}")
        section, key = places[name]
        if section == "lora" and raw.get(section, {}) is None:
            why = "is a setting of the adapter, but this recipe has none (lora: null)"
            raise UserError(f"{key} = {value!r} {why}: leave it out.")
        raw[section] = (raw.get(section) or {}) | {key: value}
    return _without_old_reasons(raw, before)


def _without_old_reasons(raw: dict, before: dict, own=()) -> dict:
    """Drop the reason of each value that is another one than before, except reasons of its `own`."""

    def values(of: dict) -> dict:
        rewards, grpo, lora = (of.get(section) or {} for section in ("rewards", "grpo", "lora"))
        return grpo | lora | dict.fromkeys(rewards, rewards)  # a reward weight depends on the other weights

    old, new, why = values(before), values(raw), raw.get("why") or {}
    return raw | {"why": {key: why[key] for key in why if key in own or old.get(key) == new.get(key)}}


def _places() -> dict[str, tuple[str, str]]:
    """{name: (section, key)} for names like "learning_rate" and "sft.learning_rate"; see SECTIONS."""
    places = {}
    for section in reversed(SECTIONS):
        for key in {*section_keys(section), *RESERVED}:  # build_recipe refuses RESERVED ones
            places[key] = places[f"{section}.{key}"] = (section, key)
    return places
