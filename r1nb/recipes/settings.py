"""The sections of a recipe and their keys, as pydantic models: a wrong key or value is found at once.

The keys of `grpo` and `sft` are TRL's. They are read from TRL's source, since importing TRL would load
PyTorch, and Unsloth must be imported before it.
"""

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

# Keys of TRL that r1nb sets.
RESERVED = {"output_dir", "reward_weights", "log_completions", "num_completions_to_print", "disable_tqdm",
            "save_only_model"}  # fmt: skip
# Names that are no folder of the user's.
SHIPPED = ("bundled", "bundled-countdown", "tiny-policy", "tiny-countdown", "smollm2-135m")


def _absolute(name: str) -> str:
    """A file or folder with its whole path, which stays right in another working directory; else the name."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name and name not in SHIPPED and path.exists() else name


AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Splits = Annotated[
    list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v), Field(min_length=1)
]
NameOrPath = Annotated[str, AfterValidator(_absolute)]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: at most `max_tokens` tokens each; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None  # None: the random numbers go on from where they are


class Section(BaseModel, extra="forbid"):
    """Part of a recipe; a key that it does not know is a mistake."""


class ModelSettings(Section):
    """How the base model is loaded: arguments of FastLanguageModel.from_pretrained, and engine."""

    model_name: NameOrPath
    engine: Literal["transformers", "unsloth"]
    max_seq_length: AtLeastOne  # tokens of prompt and completion
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # None: by the machine
    load_in_4bit: bool = False
    fast_inference: bool = False  # Unsloth: generate with vLLM
    max_lora_rank: AtLeastOne | None = None
    gpu_memory_utilization: Share | None = None
    unsloth_vllm_standby: bool = False  # vLLM's cache leaves the card while it trains
    torch_threads: AtLeastOne | None = None  # a tiny model slows down on many cores
    processes: AtLeastOne | None = None  # that accelerate launch must start; None: as many as it did


class LoraSettings(Section):
    """The adapter: arguments of peft.LoraConfig and FastLanguageModel.get_peft_model.

    A recipe with `lora: null` has none, and trains all weights.
    """

    r: AtLeastOne
    lora_alpha: AtLeastOne
    target_modules: str | list[str]
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    start_from: str | None = None  # a finished run, by name or folder, whose adapter is trained on
    use_gradient_checkpointing: str | None = None  # Unsloth's own, "unsloth"


class DataSettings(Section):
    """The rows: a dataset by name, file or folder, and which of its splits serve what.

    A split may be a slice, as in "train[-300:]".
    """

    dataset: NameOrPath
    train_split: str
    test_splits: Splits  # one at least, to measure accuracy on
    max_prompt_length: AtLeastOne  # tokens; longer prompts are dropped, and the number is printed
    validation_split: str | None = None
    validation_rows: AtLeastOne | None = None  # without such a split: the last rows of training
    min_pass_rate: Share | None = None  # of the base policy, on a problem that is trained on
    max_pass_rate: Share | None = None
    question_column: str | None = None  # of a dataset of your own
    answer_column: str | None = None
    layout: Literal["reasoning", "think"] = "reasoning"  # tags and system prompt


class ScoringSettings(Section):
    """Options of some rewards."""

    language: str = "en"  # of language_reward_func
    overlong_cache: AtLeastOne | None = None  # tokens; None: the last fifth of max_completion_length
    judge_url: str | None = None  # of judge_reward_func, an OpenAI-compatible endpoint
    judge_model: str | None = None


class EvaluationSettings(Section):
    """Accuracy on problems that are not trained on."""

    eval_every: AtLeastOne  # steps between validations
    validation_problems: AtLeastOne
    test_problems: AtLeastOne  # of each test split
    eval_batch_size: AtLeastOne
    samples: AtLeastOne = 8  # of each of sampled_problems, for pass@k and maj@k
    sampled_problems: AtLeastOne = 60


class OutputSettings(Section):
    runs_dir: str = "runs"
    resume: bool = True  # an unfinished run of the same recipe goes on


class TrlSettings(Section):
    """Keys of TRL whose values are checked here; the others have the type that TRL gives them."""

    max_steps: AtLeastOne
    seed: int = Field(42, ge=0)
    learning_rate: float = Field(1e-6, ge=0)
    per_device_train_batch_size: AtLeastOne = 8
    gradient_accumulation_steps: AtLeastOne = 1


class GrpoSettings(TrlSettings):
    seed: int = Field(ge=0)
    per_device_train_batch_size: AtLeastOne
    max_completion_length: AtLeastOne
    num_generations: int = Field(8, ge=2)  # a group needs two: the advantage compares completions
    num_iterations: AtLeastOne = 1
    temperature: float = Field(1.0, gt=0)  # a group is sampled
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none", True, False] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"


OURS = {"model": ModelSettings, "lora": LoraSettings, "data": DataSettings, "scoring": ScoringSettings,
        "evaluation": EvaluationSettings, "output": OutputSettings}  # fmt: skip


def section_keys(section: str) -> dict:
    """The keys of a section, as pydantic's fields by name."""
    return (OURS.get(section) or trl_section(section)).model_fields


@cache
def trl_section(name: Literal["grpo", "sft"]) -> type[Section]:
    """The model of the section `grpo` or `sft`: TRL's keys and types, and the checks above."""
    fields = {}
    for file in ("transformers/training_args", "trl/trainer/base_config", f"trl/trainer/{name}_config"):
        package = importlib.util.find_spec(file.partition("/")[0])
        source = (Path(package.origin).parents[1] / f"{file}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "TrainingArguments")):
                found = [line for line in node.body if isinstance(line, ast.AnnAssign)]
                fields |= {line.target.id: ast.unparse(line.annotation) for line in found}
    base = GrpoSettings if name == "grpo" else TrlSettings
    ours = {*base.model_fields, *RESERVED}
    others = {key: (_type(text), None) for key, text in fields.items() if key not in ours}
    return create_model(name, __base__=base, **others)


def _type(annotation: str):
    """The type of an annotation in TRL's source; Any where it names one of TRL's own classes."""
    try:
        return eval(annotation, {"Any": Any, "Literal": Literal})
    except NameError:
        return Any
