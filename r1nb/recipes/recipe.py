"""What to train, on what, how: a YAML file, checked before anything long begins.

Its keys are the names of TRL (`grpo`), PEFT (`lora`) and transformers or Unsloth (`model`); every
value that TRL or Unsloth would otherwise choose is set in it.
"""

import dataclasses
import os
import shlex
import typing
from pathlib import Path

import yaml

from r1nb.machine.engine import compute_dtype, prepare_unsloth
from r1nb.errors import UserError, did_you_mean
from r1nb.paths import RECIPES, runs_folder
from r1nb.recipes.recipe_check import check_recipe, check_writable
from r1nb.runs.run import Run
from r1nb.recipes.settings import (
    SHIPPED,
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    OutputSettings,
    ScoringSettings,
    sections,
)


@dataclasses.dataclass
class Recipe:
    """A checked recipe. `rewards` maps a reward function's name to its weight."""

    name: str
    about: str
    model: ModelSettings
    lora: LoraSettings | None  # None: all weights are trained
    data: DataSettings
    scoring: ScoringSettings
    evaluation: EvaluationSettings
    output: OutputSettings
    sft: dict  # of a short SFT start; empty: none
    grpo: dict
    rewards: dict[str, float]
    why: dict[str, str]  # a reason for each GRPO value worth one

    @property
    def group_size(self) -> int:
        """Completions a problem."""
        return self.grpo.get("num_generations", 8)

    @property
    def batch_size(self) -> int:
        """Completions an optimizer step, in one process."""
        return self.grpo["per_device_train_batch_size"] * self.grpo.get("gradient_accumulation_steps", 1)

    def scorer(self, name: str, **changes):
        """A reward by name, with the settings of this recipe that it takes."""
        from r1nb.rewards import REWARDS

        limit = self.grpo["max_completion_length"]
        settings = {"layout": self.data.layout, "max_completion_length": limit, **vars(self.scoring)}
        settings["overlong_cache"] = self.scoring.overlong_cache or max(1, limit // 5)
        return dataclasses.replace(REWARDS[name], settings=settings, **changes)

    def reward_funcs(self, end_tokens=()) -> list:
        """TRL reward functions; told the policy's end tokens, the first logs what TRL's log lacks.

        That is the gold of each completion, its length in tokens, and whether it was cut off.
        """
        first, *others = self.rewards
        return [self.scorer(first, end_tokens=tuple(end_tokens)), *map(self.scorer, others)]

    def judge_of(self, what: str, columns=()):
        """The reward by which evaluation judges the "answer" or the "format".

        The first of the recipe's that does; without one, the one that suits the layout or the columns.
        """
        from r1nb.rewards import REWARDS

        default = "strict_format_reward_func" if self.data.layout == "reasoning" else "r1_format_reward_func"
        if what == "answer":
            special = {"nums": "countdown_reward_func", "problem": "gym_reward_func"}
            default = next((special[c] for c in columns if c in special), "correctness_reward_func")
        return self.scorer(next((n for n in self.rewards if REWARDS[n].judges == what), default))

    def grpo_config(self, output_dir: Path | str):
        """The trl.GRPOConfig that the recipe stands for."""
        from trl import GRPOConfig

        return GRPOConfig(
            output_dir=str(output_dir),
            reward_weights=list(self.rewards.values()),
            log_completions=True,
            num_completions_to_print=0,
            disable_tqdm=True,  # the run draws its own progress
            **self._precision() | self.grpo,
        )

    def sft_config(self, output_dir: Path | str):
        """The trl.SFTConfig of the section `sft`."""
        from trl import SFTConfig

        return SFTConfig(output_dir=str(output_dir), disable_tqdm=True, **self._precision() | self.sft)

    def _precision(self) -> dict[str, bool]:
        dtype = compute_dtype(self.model)
        return {"bf16": dtype == "bfloat16", "fp16": dtype == "float16"}

    def to_dict(self) -> dict:
        """As YAML would hold it: what a run folder keeps."""
        return dataclasses.asdict(self)

    def table(self) -> list[tuple[str, object, str]]:
        """(name, value, reason) of the values that decide a run."""
        values = self.rewards | self.grpo | (dataclasses.asdict(self.lora) if self.lora else {})
        return [(key, values[key], reason) for key, reason in self.why.items() if key in values]


def default_runs_dir() -> str:
    """The folder that recipes write runs into: R1NB_SET's runs_dir, or else runs."""
    return str(_from_environment().get("runs_dir", OutputSettings.runs_dir))


def recipe_names() -> list[str]:
    """The recipes that ship with r1nb."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str = "tiny-cpu", /, **overrides) -> Recipe:
    """A shipped recipe by name, or a YAML file by path, with values replaced by key.

    `rewards` replaces them all: {name: weight}; lora=None leaves the adapter out. Where GRPO's sections and
    `sft` share a key, `sft.max_steps` means the latter.

    The environment variable R1NB_SET replaces them once more: R1NB_SET="max_steps=5 seed=2", and
    R1NB_SET="recipe=smollm2-135m" another recipe altogether. Raises UserError for an unknown recipe
    or key, a value of the wrong type, and values that cannot go together.
    """
    overrides = overrides | _from_environment()
    name = str(overrides.pop("recipe", name))
    raw = _read(name)
    _import_unsloth_first(raw, overrides)
    _check_sections(name, raw)
    raw["rewards"] = overrides.pop("rewards", raw.get("rewards"))
    if "lora" in overrides:
        raw["lora"] = _typed("lora", overrides.pop("lora"), None)
    fields = {section: _hints(cls) for section, cls in sections().items()}
    for key, value in overrides.items():
        section, key = _section_of(key, fields)
        if raw[section] is None:
            raise UserError(f"{key} = {value!r} is the adapter's, and this recipe has none (lora: null).")
        raw[section][key] = value
    for section, key in (("data", "dataset"), ("model", "model_name")):
        value = str(raw[section].get(key, ""))
        if value not in ("", *SHIPPED) and (path := Path(value).expanduser()).exists():
            raw[section][key] = str(path.resolve())  # stays right in another working directory
    recipe = build_recipe(raw | {"name": Path(name).stem})
    check_writable(runs_folder(recipe.output.runs_dir))
    if recipe.lora and recipe.lora.start_from:
        Run.named(recipe.lora.start_from, recipe.output.runs_dir)
    return recipe


def build_recipe(raw: dict) -> Recipe:
    """A recipe from what YAML holds, every key and value checked."""
    _import_unsloth_first(raw, {})
    checked = {}
    for section, cls in sections().items():
        hints = _hints(cls)
        if section == "lora" and raw.get(section, {}) is None:
            checked[section] = None
            continue
        for key in raw.get(section) or {}:
            if key not in hints:
                raise UserError(f"Unknown key {section}.{key}{did_you_mean(key, hints)}")
        values = {k: _typed(f"{section}.{k}", v, hints[k]) for k, v in (raw.get(section) or {}).items()}
        try:
            checked[section] = values if section in ("sft", "grpo") else cls(**values)
        except TypeError as error:
            missing = str(error).partition("argument")[2].strip(" s:")
            raise UserError(f"The recipe's section {section!r} lacks {missing}.") from None
    rewards = _typed("rewards", raw.get("rewards"), dict[str, float])
    recipe = Recipe(raw["name"], raw.get("about", ""), rewards=rewards, why=raw.get("why", {}), **checked)
    check_recipe(recipe)
    return recipe


def _read(name: str, below: tuple[str, ...] = ()) -> dict:
    """What a YAML file says, with what it takes over from the recipe that it is `like`."""
    if name in below:
        raise UserError(f"Recipe {name} is like itself: {' like '.join([*below, name])}.")
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        names = recipe_names()
        hint = did_you_mean(name, names) if path.parent == RECIPES else ": no such file."
        raise UserError(f"Unknown recipe {name!r}{hint} Recipes: {', '.join(names)}, or a .yaml file.")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"Recipe {path} is not valid YAML{where}.") from None
    if not isinstance(raw, dict):
        raise UserError(f"Recipe {path} holds no sections; see recipes/tiny-cpu.yaml.")
    base = _read(str(raw.pop("like")), (*below, name)) if "like" in raw else {}
    for section, values in base.items():
        if section != "rewards" and isinstance(values, dict) and isinstance(raw.get(section, {}), dict):
            raw[section] = values | (raw.get(section) or {})
        raw.setdefault(section, values)
    return raw


def _check_sections(name: str, raw: dict) -> None:
    known = {"about", "rewards", "why", "name", *sections()}
    for key in raw:
        if key not in known:
            raise UserError(f"Recipe {name}: unknown section {key!r}{did_you_mean(key, {*known, 'like'})}")
    for section in sections():
        if not isinstance(raw.setdefault(section, {}) or {}, dict):
            raise UserError(f"Recipe {name}: section {section!r} must hold key: value lines.")
        if section != "lora" or raw[section] is not None:
            raw[section] = dict(raw[section] or {})


def _import_unsloth_first(raw: dict, overrides: dict) -> None:
    """Unsloth patches trl and transformers only if it is imported before them, as sections() does."""
    model = raw.get("model")
    model = model | overrides if isinstance(model, dict) else overrides
    if model.get("engine") == "unsloth":
        prepare_unsloth(bool(model.get("unsloth_vllm_standby")))


def _from_environment() -> dict:
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


def _hints(cls: type) -> dict[str, object]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _section_of(key: str, fields: dict[str, dict]) -> tuple[str, str]:
    """(section, key) of "learning_rate" or "sft.learning_rate"; GRPO's sections come first."""
    section, dot, name = key.partition(".")
    if dot and name in fields.get(section, ()):
        return section, name
    for section in sorted(fields, key=lambda section: section == "sft"):
        if key in fields[section]:
            return section, key
    known = [k for hints in fields.values() for k in hints]
    raise UserError(f"Unknown setting {key!r}{did_you_mean(key, known)}")


def _typed(key: str, value, hint):
    """The value as its type, so that the YAML string 5e-6 becomes a number."""
    from pydantic import TypeAdapter, ValidationError

    if hint == list[str] and isinstance(value, str):
        value = [value]  # test_splits=test
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{key} = {value!r}: {error.errors()[0]['msg']}.") from None
