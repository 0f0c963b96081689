"""What to train, on what, how: a YAML file, checked before anything long begins.

Its keys are the names of TRL (`grpo`), PEFT (`lora`) and transformers or Unsloth (`model`); every
value that TRL or Unsloth would otherwise choose is set in it.
"""

import dataclasses
import importlib.util
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from r1nb.errors import UserError, did_you_mean
from r1nb.paths import RECIPES, runs_folder
from r1nb.processes import processes
from r1nb.recipes.settings import (
    RESERVED,
    SHIPPED,
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    OutputSettings,
    Sampling,
    ScoringSettings,
    Section,
    trl_section,
)
from r1nb.rewards.grading import Judge, make_judge
from r1nb.rewards.registry import find_reward
from r1nb.text.prompts import LAYOUTS, Layout

SECTIONS = ("model", "lora", "data", "grpo", "scoring", "evaluation", "output", "sft")  # sft last: see _find
WORDS = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "int": "must be a whole number",
    "float": "must be a number",
    "dict": "must hold key: value lines",
}
OPTIONAL = ("lora", "sft")  # null leaves them out, and so does an empty section


def _trl(name: str):
    """The type of a section that holds TRL's keys: a dict, each key and value checked."""

    def check(values):
        if values in (None, {}) and name in OPTIONAL:
            return {}
        if ours := sorted(RESERVED.intersection(values if isinstance(values, dict) else ())):
            raise UserError(f"{name}.{ours[0]} is set by r1nb itself; take it out of the recipe.")
        checked = trl_section(name).model_validate(values).model_dump()
        return {key: checked[key] for key in values}

    return Annotated[dict, BeforeValidator(check)]


class Recipe(Section):
    """A checked recipe. `rewards` maps a reward function's name to its reward weight."""

    name: str
    about: str = ""
    model: ModelSettings
    lora: Annotated[LoraSettings | None, BeforeValidator(lambda v: v or None)]  # None: all weights train
    data: DataSettings
    scoring: ScoringSettings = ScoringSettings()
    evaluation: EvaluationSettings
    output: OutputSettings = OutputSettings()
    sft: _trl("sft") = Field({})  # of a short SFT start; empty: none
    grpo: _trl("grpo")
    rewards: dict[str, float]
    why: dict[str, str] = Field({})  # a reason for each GRPO value worth one

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.data.layout]

    @property
    def group_size(self) -> int:
        """Completions a problem."""
        return self.grpo.get("num_generations", 8)

    @property
    def batch_size(self) -> int:
        """Completions an optimizer step, in one process."""
        return self.grpo["per_device_train_batch_size"] * self.grpo.get("gradient_accumulation_steps", 1)

    @property
    def problems_per_step(self) -> int:
        """Problems an optimizer step, in all processes."""
        return processes() * self.batch_size // self.group_size

    @property
    def greedy(self) -> Sampling:
        """How evaluation samples."""
        return Sampling(self.grpo["max_completion_length"])

    @property
    def sampling(self) -> Sampling:
        """How training samples."""
        temperature, top_p = self.grpo.get("temperature", 1.0), self.grpo.get("top_p", 1.0)
        return Sampling(self.grpo["max_completion_length"], temperature, top_p, self.grpo["seed"])

    def judge(self, columns=()) -> Judge:
        """The recipe's rewards with their options; `columns` are the dataset's (rewards.grading)."""
        limit, options = self.grpo["max_completion_length"], dict(self.scoring)
        options |= {"max_completion_length": limit}
        options["overlong_cache"] = self.scoring.overlong_cache or max(1, limit // 5)
        return make_judge(self.rewards, self.layout, columns, **options)

    def reward_funcs(self, end_tokens=()) -> list:
        """TRL reward functions. With the policy's end tokens, the first one also logs each completion's gold,
        its length in tokens, and whether it was truncated.
        """
        first, *others = self.judge().rewards.values()
        return [dataclasses.replace(first, end_tokens=tuple(end_tokens)), *others]

    def to_dict(self) -> dict:
        """As YAML would hold it: what a run folder keeps."""
        return self.model_dump()

    def reasons(self) -> list[tuple[str, object, str]]:
        """(name, value, reason) of the values that decide a run."""
        values = self.rewards | self.grpo | (dict(self.lora) if self.lora else {})
        return [(key, values[key], reason) for key, reason in self.why.items() if key in values]

    @model_validator(mode="after")
    def _check_rewards(self):
        for name, weight in self.rewards.items():
            library = find_reward(name).library
            if library and importlib.util.find_spec(library) is None:
                raise UserError(f"{name} needs {library}, which is missing: pip install 'r1nb[rewards,gym]'.")
            if not 0 <= weight < float("inf"):
                raise UserError(f"rewards.{name} = {weight}: a reward weight is a number of at least 0.")
        if not any(self.rewards.values()):
            raise UserError("rewards: give at least one reward a weight above 0.")
        scoring = self.scoring
        if "judge_reward_func" in self.rewards and not (scoring.judge_url and scoring.judge_model):
            raise UserError(
                "judge_reward_func needs judge_url and judge_model: an OpenAI-compatible endpoint."
            )
        if (scoring.overlong_cache or 0) > self.grpo["max_completion_length"]:
            raise UserError(
                f"overlong_cache = {scoring.overlong_cache} is more than max_completion_length = "
                f"{self.grpo['max_completion_length']}; lower it."
            )
        if "language_reward_func" in self.rewards:
            self.judge().rewards["language_reward_func"].score("")  # refuses an unknown language
        return self

    @model_validator(mode="after")
    def _check_sizes(self):
        group, batch = self.group_size, self.batch_size
        if batch % group:
            raise UserError(
                f"num_generations = {group} does not divide the batch of {batch} completions "
                "(per_device_train_batch_size x gradient_accumulation_steps); make the batch "
                f"{max(1, batch // group) * group} or {(batch // group + 1) * group}."
            )
        room = self.data.max_prompt_length + self.grpo["max_completion_length"]
        if room > self.model.max_seq_length:
            raise UserError(
                f"max_prompt_length + max_completion_length = {room} tokens, more than max_seq_length = "
                f"{self.model.max_seq_length}; raise it or lower one of the two."
            )
        if self.model.fast_inference and not (
            self.model.engine == "unsloth" and self.model.gpu_memory_utilization
        ):
            raise UserError(
                "fast_inference=true is vLLM inside Unsloth: it needs engine=unsloth and a "
                "gpu_memory_utilization, the share of the card for vLLM; or set fast_inference=false."
            )
        if self.lora is None and (self.model.engine == "unsloth" or self.model.load_in_4bit):
            raise UserError(
                "lora: null trains all weights, which takes engine=transformers and load_in_4bit=false: set "
                "both, or give the recipe an adapter."
            )
        return self

    @model_validator(mode="after")
    def _check_data(self):
        data = self.data
        if not data.test_splits:
            raise UserError("test_splits is empty: name at least one split to measure accuracy on.")
        low, high = data.min_pass_rate, data.max_pass_rate
        if None not in (low, high) and low > high:
            raise UserError(f"min_pass_rate = {low} is above max_pass_rate = {high}; exchange the two.")
        if data.train_split in data.test_splits or data.train_split.startswith("test"):
            raise UserError(
                f"train_split = {data.train_split!r} is a test split: never train on it. Set "
                "train_split='train', and where there is no other split, test_splits='train[-100:]'."
            )
        return self


def recipe_names() -> list[str]:
    """The recipes that ship with r1nb."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name="tiny-cpu", /, **overrides) -> Recipe:
    """A shipped recipe by name, or a YAML file by path, with values replaced by key.

    A run, or a run folder, gives the recipe as that run used it.

    `rewards` replaces them all: {name: weight}; lora=None and sft=None leave the section out. Where GRPO's
    sections and `sft` share a key, `sft.max_steps` means the latter.

    The environment variable R1NB_SET replaces values once more: R1NB_SET="max_steps=5 seed=2", and
    R1NB_SET="recipe=smollm2-135m" another recipe altogether. Raises UserError for an unknown recipe
    or key, a value of the wrong type, and values that cannot go together.
    """
    if Path(name).is_dir():
        return build_recipe(_parse(Path(name) / "recipe.yaml"))
    name, raw = os.fspath(name), {}
    overrides = overrides | environment_overrides()
    chosen = str(overrides.pop("recipe", name))
    name = name if chosen == "auto" else chosen  # hardware.choose_recipe has looked at the machine
    raw = _read(name)
    for key in ("rewards", *OPTIONAL):
        if key in overrides:
            raw[key] = overrides.pop(key)
    for key, value in overrides.items():
        section, key = _find(key)
        if raw.get(section) is None and section == "lora":
            raise UserError(f"{key} = {value!r} is the adapter's, and this recipe has none (lora: null).")
        raw[section] = {**(raw.get(section) or {}), key: value}
    for section, key in (("data", "dataset"), ("model", "model_name")):
        value = str((raw.get(section) or {}).get(key, ""))
        if value not in ("", *SHIPPED) and (path := Path(value).expanduser()).exists():
            raw[section][key] = str(path.resolve())  # stays right in another working directory
    recipe = build_recipe(raw | {"name": Path(name).stem})
    check_writable(runs_folder(recipe.output.runs_dir))
    return recipe


def build_recipe(raw: dict) -> Recipe:
    """A recipe from what YAML holds, every key and value checked."""
    for key, value in raw.items():
        if key not in Recipe.model_fields:
            known = {*Recipe.model_fields, "like"}
            raise UserError(f"Recipe {raw['name']}: unknown section {key!r}{did_you_mean(key, known)}")
        if key in SECTIONS and not isinstance(value or {}, dict):
            raise UserError(f"Recipe {raw['name']}: section {key!r} must hold key: value lines.")
    sections = {key: value for key, value in raw.items() if value is not None or key == "lora"}
    try:
        return Recipe(**{"lora": {}, "model": {}, "data": {}, "evaluation": {}, "grpo": {}} | sections)
    except ValidationError as error:
        raise UserError(_sentence(error)) from None


def default_runs_dir() -> str:
    """The folder that recipes write runs into: R1NB_SET's runs_dir, or else runs."""
    found = {_find(key): v for key, v in environment_overrides().items() if key not in ("recipe", "rewards")}
    return str(found.get(("output", "runs_dir"), OutputSettings().runs_dir))


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
        raise UserError(
            f"runs_dir = {str(folder)!r} cannot be written ({error.strerror}); set runs_dir to a "
            "folder of yours."
        ) from None


def _read(name: str, below: tuple[str, ...] = ()) -> dict:
    """What a YAML file says, with what it takes over from the recipe that it is `like`."""
    if name in below:
        raise UserError(f"Recipe {name} is like itself: {' like '.join([*below, name])}.")
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        names = recipe_names()
        hint = did_you_mean(name, names) if path.parent == RECIPES else ": no such file."
        if name == "auto":
            hint = ": choose_recipe looks at the machine and knows it."
        raise UserError(f"Unknown recipe {name!r}{hint} Recipes: {', '.join(names)}, or a .yaml file.")
    raw = _parse(path)
    if "like" not in raw:
        return raw
    base = _read(str(raw.pop("like")), (*below, name))
    for section, values in base.items():
        dropped = section in OPTIONAL and section in raw and not raw[section]
        if section != "rewards" and isinstance(values, dict) and isinstance(raw.get(section, {}), dict):
            raw[section] = raw[section] if dropped else values | raw.get(section, {})
        raw.setdefault(section, values)
    return raw


def _parse(path: Path) -> dict:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"Recipe {path} is not valid YAML{where}.") from None
    if not isinstance(raw, dict):
        raise UserError(f"Recipe {path} holds no sections; see recipes/tiny-cpu.yaml.")
    return {"name": path.stem, **raw}


def _fields(section: str) -> dict:
    """The keys of a section."""
    model = trl_section(section) if section in ("grpo", "sft") else Recipe.model_fields[section].annotation
    return (LoraSettings if section == "lora" else model).model_fields


def _find(key: str) -> tuple[str, str]:
    """(section, key) of "learning_rate" or "sft.learning_rate"; GRPO's sections come first."""
    section, dot, name = key.partition(".")
    if dot and section in SECTIONS and name in {*_fields(section), *RESERVED}:
        return section, name
    for section in SECTIONS:
        if key in _fields(section) or (section == "grpo" and key in RESERVED):
            return section, key
    known = [k for section in SECTIONS for k in _fields(section)]
    raise UserError(f"Unknown setting {key!r}{did_you_mean(key, known)}")


def _sentence(error: ValidationError) -> str:
    """The first mistake that pydantic found, in one sentence."""
    found = error.errors()[0]
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    if isinstance(context.get("error"), UserError):
        return str(context["error"])
    section, *rest = map(str, found["loc"][:2])
    key = ".".join([section, *rest])
    if kind == "missing":
        model = "tiny-r1" if section == "sft" else "tiny-cpu"
        return (
            f"The recipe's section {section!r} lacks {rest[0] if rest else 'all'}; see recipes/{model}.yaml."
        )
    if kind == "extra_forbidden":
        return f"Unknown key {key}{did_you_mean(rest[0], _fields(section))}"
    if kind == "literal_error":
        known = re.findall(r"'([^']+)'", context["expected"])
        return f"{key} = {value!r}{did_you_mean(str(value), known)} Known are {', '.join(known)}."
    words = next((words for start, words in WORDS.items() if kind.startswith(start)), found["msg"])
    return f"{key} = {value!r}: {words.format(**context)}."
