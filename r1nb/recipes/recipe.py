"""The recipe: all settings of a training run, checked.

Its keys have the names of TRL (`grpo`), PEFT (`lora`) and transformers or Unsloth (`model`). The recipe
sets every value that TRL or Unsloth would otherwise choose.
"""

import copy
import dataclasses
import importlib.util
import re
from typing import Annotated

from pydantic import Field, ValidationError, field_validator, model_validator

from r1nb.errors import UserError, did_you_mean
from r1nb.processes import processes
from r1nb.recipes import settings
from r1nb.recipes.settings import RESERVED, Sampling, Section, section_keys, trl_section, unknown_key
from r1nb.rewards.grading import Judge, make_judge
from r1nb.rewards.registry import find_reward, is_own, reward_names
from r1nb.text.prompts import LAYOUTS, Layout

# pydantic's wording (regular expressions), and the plainer words that replace it.
PLAINER = {"be a valid dictionary.*": "hold key: value lines", "(Input|Value) should": "must",
           ",? (unable to|after) .*": "", "greater than or equal to": "at least",
           "less than or equal to": "at most"}  # fmt: skip


EXTRA = "extra_forbidden"  # pydantic's name for an unknown key
NEUTRAL = {"xmlcount_reward_func": 1.0}  # judges no answers: the dataset's own reward does


class Recipe(Section):
    """A checked recipe; model_dump() gives its values as in YAML, which a run folder keeps.

    `rewards` maps a reward function's name to its reward weight.
    """

    name: settings.Name
    about: str = ""
    model: settings.ModelSettings
    lora: settings.LoraSettings | None  # None: all weights train
    data: settings.DataSettings
    scoring: settings.ScoringSettings = settings.ScoringSettings()
    evaluation: settings.EvaluationSettings
    output: settings.OutputSettings = settings.OutputSettings()
    sft: dict = Field({})  # supervised fine-tuning before GRPO; empty: none
    grpo: dict
    rewards: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    why: dict[str, str] = Field({})  # {key: reason} for the most important values

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.data.layout]

    @property
    def group_size(self) -> int:
        """Completions per problem."""
        return self.grpo.get("num_generations", 8)

    @property
    def batch_size(self) -> int:
        """Completions per optimizer step in one process."""
        return self.grpo["per_device_train_batch_size"] * self.grpo.get("gradient_accumulation_steps", 1)

    @property
    def problems_per_generation(self) -> int:
        """The number of problems that TRL samples completions for at once, in all processes together.

        If the dataset has fewer rows, TRL's sampler yields nothing and no step is trained.
        """
        batches = self.grpo.get("steps_per_generation") or self.grpo.get("gradient_accumulation_steps", 1)
        completions = processes() * self.grpo["per_device_train_batch_size"] * batches
        return (self.grpo.get("generation_batch_size") or completions) // self.group_size

    @property
    def greedy(self) -> Sampling:
        """The sampling settings of evaluation: greedy."""
        return Sampling(self.grpo["max_completion_length"])

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of training."""
        temperature, top_p = self.grpo.get("temperature", 1.0), self.grpo.get("top_p", 1.0)
        return Sampling(self.grpo["max_completion_length"], temperature, top_p, self.grpo["seed"])

    def judge(self, columns=()) -> Judge:
        """The judge with the recipe's rewards and their options; `columns` are the dataset's columns."""
        limit = self.grpo["max_completion_length"]
        options = dict(self.scoring) | {"max_completion_length": limit}
        options["overlong_cache"] = self.scoring.overlong_cache or max(1, limit // 5)
        return make_judge(self.rewards, self.layout, columns, **options)

    def reward_funcs(self, end_tokens=()) -> list:
        """TRL reward functions. With the policy's end tokens, the first one also logs each completion's gold,
        its length in tokens, and whether it was truncated.
        """
        first, *others = self.judge().rewards.values()
        return [dataclasses.replace(first, end_tokens=tuple(end_tokens)), *others]

    @field_validator("sft", "grpo", mode="before")
    @classmethod
    def _check_trl(cls, values, info):
        checked = trl_section(info.field_name).model_validate(values).model_dump()
        return {key: checked[key] for key in values}

    @model_validator(mode="after")
    def _check_rewards(self):
        for name in self.rewards:
            if library := _missing_library(name):
                raise UserError(f"{name} needs {library}, which is missing: pip install 'r1nb[rewards,gym]'.")
        if not any(self.rewards.values()):
            raise UserError("rewards: give at least one reward a weight above 0.")
        scoring, limit = self.scoring, self.grpo["max_completion_length"]
        if "judge_reward_func" in self.rewards and not (scoring.judge_url and scoring.judge_model):
            raise UserError(
                "judge_reward_func needs judge_url and judge_model (an OpenAI-compatible endpoint): set both."
            )
        if (cache := scoring.overlong_cache or 0) > limit:
            raise UserError(f"overlong_cache = {cache} is above max_completion_length = {limit}; lower it.")
        if "language_reward_func" in self.rewards:
            self.judge().rewards["language_reward_func"].score("")  # refuses an unknown language
        return self

    @model_validator(mode="after")
    def _check_values(self):
        group, batch = self.group_size, self.batch_size
        if batch % group:
            below, above = batch // group * group, (batch // group + 1) * group
            sizes = f"{below} or {above}" if below else f"{above}"
            raise UserError(
                f"num_generations = {group} does not divide the batch of {batch} completions "
                f"(per_device_train_batch_size x gradient_accumulation_steps); make the batch {sizes}."
            )
        model, room = self.model, self.data.max_prompt_length + self.grpo["max_completion_length"]
        if room > model.max_seq_length:
            limit = f"max_seq_length = {model.max_seq_length}"
            raise UserError(
                f"max_prompt_length + max_completion_length = {room} is above {limit}; raise max_seq_length."
            )
        if model.fast_inference and not (model.engine == "unsloth" and model.gpu_memory_utilization):
            raise UserError("fast_inference=true needs engine=unsloth and a gpu_memory_utilization.")
        if self.lora is None and (model.engine == "unsloth" or model.load_in_4bit):
            raise UserError("lora: null (train all weights) needs engine=transformers, load_in_4bit=false.")
        data = self.data
        low, high = data.min_pass_rate, data.max_pass_rate
        if None not in (low, high) and low > high:
            raise UserError(f"min_pass_rate = {low} is above max_pass_rate = {high}; exchange the two.")
        if data.train_split in data.test_splits or data.train_split.startswith("test"):
            raise UserError(
                f"train_split = {data.train_split!r} is a test split: never train on it. Set "
                "train_split='train'. If the dataset has no other split, set test_splits='train[-100:]' too."
            )
        return self


def build_recipe(raw: dict) -> Recipe:
    """A recipe from the values of YAML, with all keys and values checked; empty sections are left out."""
    empty = {key for key in Recipe.model_fields.keys() - {"lora"} if raw.get(key) in (None, {})}
    try:
        return Recipe.model_validate({key: value for key, value in raw.items() if key not in empty})
    except ValidationError as error:
        raise UserError(_sentence(error.errors())) from None


def _missing_library(name: str) -> str:
    """The library that a reward needs and that is not installed; "" if there is none."""
    library = "" if is_own(name) else find_reward(name).library  # a file of the user is not executed here
    return library if library and importlib.util.find_spec(library) is None else ""


def known_rewards(weights: dict, said: str) -> dict:
    """The rewards that this process can compute; a printed sentence begins with `said` and names the others.

    A reward of weight 1 that judges no answers stands in if none is left.
    """
    known = {name: weight for name, weight in weights.items()
             if name in reward_names() and not _missing_library(name)}  # fmt: skip
    if unknown := ", ".join(weights.keys() - known.keys()):
        print(f"{said} has rewards that are unknown here; left out: {unknown}.")
    return known if any(known.values()) else NEUTRAL


def salvage_recipe(raw: dict, default: dict, said: str) -> Recipe:
    """A recipe for sampling from a run that another version of r1nb or TRL made, or another process.

    Rewards and keys that are unknown here, and values that are not valid here, are left out; what is missing
    is taken from `default`. Each is named, after the words `said`. Raises UserError if that is not enough.
    """
    raw = copy.deepcopy(raw) | {"rewards": known_rewards(raw["rewards"], said)}
    while True:
        try:
            return build_recipe(raw)
        except UserError as error:
            if not isinstance(error.__context__, ValidationError):
                raise
            mistakes = error.__context__.errors()
        kind, (*sections, key) = mistakes[0]["type"], mistakes[0]["loc"][:2] or [None]
        part = raw[sections[0]] if sections else raw
        name = ".".join(map(str, [*sections, key]))
        if kind == "missing":
            part[key] = default[sections[0]][key] if sections else default[key]
            print(f"{said} lacks {name}: {part[key]!r} is used instead.")
        elif key in part:
            print(f"{said} has {name} = {part.pop(key)!r:.80}, which is not valid here and is left out.")
        else:
            raise UserError(_sentence(mistakes))


def _sentence(mistakes: list[dict]) -> str:
    """One sentence about pydantic's findings: the first unknown key, or else the first mistake."""
    found = next((m for m in mistakes if m["type"] == EXTRA), mistakes[0])
    kind, value, words = found["type"].replace("invalid_key", EXTRA), found["input"], found["msg"]
    if kind == "value_error":  # a UserError
        return words.removeprefix("Value error, ")
    section, *keys = map(str, found["loc"][:2])
    name = ".".join([section, *keys])
    if kind == EXTRA and RESERVED.intersection(keys):
        return f"{name} is set by r1nb itself; take it out of the recipe."
    if kind == EXTRA:
        if keys:
            return f"Unknown key {name}{unknown_key(section, keys[0], section_keys(section))}"
        return f"Unknown key {name}{unknown_key('', section, {*Recipe.model_fields, 'like'})}"
    if kind == "missing":
        missing = [".".join(map(str, m["loc"])) for m in mistakes if m["type"] == kind]
        return f"The recipe lacks {', '.join(missing)}; see recipes/llama31-8b-r1.yaml."
    for theirs, plain in PLAINER.items():
        words = re.sub(theirs, plain, words)
    known = re.findall(r"'([^']+)'", words)
    end = "; 0 means all tokens." if name == "grpo.top_k" else did_you_mean(str(value), known)
    return f"{name} = {value!r}: {words}{end}"
