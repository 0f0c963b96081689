"""The sections of a recipe and their keys, as pydantic models: a wrong key or value is found at once.

The keys of `grpo` and `sft` are TRL's. They are read from TRL's source code, because importing TRL would
load PyTorch, and Unsloth must be imported before TRL.
"""

import ast
import builtins
import importlib.metadata
import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

from r1nb.errors import UserError, did_you_mean
from r1nb.paths import user_path
from r1nb.processes import processes

# Keys of TRL that r1nb sets itself, so a recipe must not set them.
RESERVED = {"output_dir", "reward_weights", "log_completions", "num_completions_to_print", "disable_tqdm",
            "save_only_model"}  # fmt: skip
VALIDATES = "TRL gets no evaluation data from r1nb, which validates by itself: set eval_every"
# Keys of TRL that would end the training after minutes, or spoil it: (the values that work, the reason).
FIXED = {
    "eval_strategy": (("no", False, None), VALIDATES),
    "eval_on_start": ((False, None), VALIDATES),
    "push_to_hub": ((False, None), "r1nb uploads nothing while it trains: upload the adapter afterwards"),
    "log_completions_hub_repo": ((None, ""), "r1nb uploads nothing: the run folder keeps the completions"),
    "num_train_epochs": (
        (),
        "a run is as long as max_steps says, so set max_steps to epochs x rows / problems of one step",
    ),
    "resume_from_checkpoint": (
        (None, True, "true", "True"),
        "r1nb resumes an unfinished run by itself, from its last whole checkpoint; resume=false begins anew",
    ),
}  # fmt: skip
FIXED_GRPO = {
    "remove_unused_columns": ((False, None), "TRL would hide the gold and other columns from the rewards"),
}
LAUNCHED = ("deepspeed", "fsdp", "fsdp_config", "parallelism_config")  # they need several processes
# Ranges of TRL's numbers that it would take without a word, or refuse only while it trains.
RANGES = {
    **dict.fromkeys(
        ("top_k", "beta", "epsilon", "epsilon_high", "warmup_steps", "max_grad_norm"), Field(ge=0)
    ),
    **dict.fromkeys(("top_p", "vllm_gpu_memory_utilization"), Field(gt=0, le=1)),
    **dict.fromkeys(("min_p", "top_entropy_quantile"), Field(ge=0, le=1)),
    **dict.fromkeys(("repetition_penalty", "delta", "logging_steps", "save_steps"), Field(gt=0)),
    **dict.fromkeys(("steps_per_generation", "generation_batch_size", "pad_to_multiple_of"), Field(ge=1)),
}
# Names of data and models of r1nb; they never mean a folder of the user.
SHIPPED = ("bundled", "bundled-countdown", "tiny-policy", "tiny-countdown")
LONGEST = 60  # characters of a name: with 4 bytes each and a number, still a file name on every system


def _absolute(name: str) -> str:
    """The absolute path of an existing file or folder, valid in any working directory; else the name."""
    path = user_path(name)
    return str(path.resolve()) if name and name not in SHIPPED and path.exists() else name


def _name_of_runs(name: str) -> str:
    """A name as part of a folder's name that every system accepts: spaces become hyphens.

    Nothing else is replaced, so that two names stay two names. Raises UserError, which proposes another name,
    if it is empty or longer than LONGEST, begins with one of ".-~" or with a device of Windows, or holds a
    character that Windows forbids, that is invisible, or an emoji.
    """
    hyphens = re.sub(r"\s+(-+\s+)?", "-", unicodedata.normalize("NFC", name).strip())
    odd = [sign for sign in hyphens if _is_odd(sign)]
    plain = "".join("-" if sign in odd else sign for sign in hyphens)
    device = re.match(r"(con|prn|aux|nul|com\d|lpt\d)\.", plain, re.IGNORECASE)
    if not hyphens:
        why = "is empty"
    elif odd:
        why = f"holds {odd[0]!r}"
    elif hyphens[0] in ".-~":
        why = f"begins with {hyphens[0]!r}"
    elif device:
        why = f"begins like Windows' device {device[1]!r}"
    elif len(hyphens) > LONGEST:
        why = f"has {len(hyphens)} characters, more than {LONGEST}"
    else:
        return hyphens
    words = re.sub(r"-{2,}", "-", plain.replace(".", "-") if device else plain)
    other = words.lstrip(".-~")[:LONGEST].rstrip("-") or "first-try"
    raise UserError(f"Runs cannot be named {name!r:.80}, because the name {why}: set name={other!r}.")


def _is_odd(sign: str) -> bool:
    """Whether a character is forbidden in a file's name on Windows, invisible, or an emoji or the like."""
    emoji = not sign.isascii() and unicodedata.category(sign) in ("So", "Sk")
    return sign in '/\\:*?"<>|' or not sign.isprintable() or emoji


Name = Annotated[str, AfterValidator(_name_of_runs)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Splits = Annotated[
    list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v), Field(min_length=1)
]
NameOrPath = Annotated[str, AfterValidator(_absolute)]
# A name without a slash is first that of a run in runs_dir.
RunOrPath = Annotated[str, AfterValidator(lambda name: _absolute(name) if "/" in name else name)]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: at most `max_tokens` tokens each; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None  # None: the random number generator is not reset


class Section(BaseModel, extra="forbid"):
    """A section of a recipe; an unknown key is an error."""


class ModelSettings(Section):
    """How the base model is loaded: arguments of FastLanguageModel.from_pretrained, and engine."""

    model_name: NameOrPath
    engine: Literal["transformers", "unsloth"]
    max_seq_length: AtLeastOne  # tokens of prompt and completion
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # None: chosen for the machine
    load_in_4bit: bool = False
    fast_inference: bool = False  # Unsloth: generate with vLLM
    max_lora_rank: AtLeastOne | None = None
    gpu_memory_utilization: Share | None = None
    unsloth_vllm_standby: bool = False  # vLLM frees its cache on the card during training
    torch_threads: AtLeastOne | None = None  # a tiny model slows down on many cores
    processes: AtLeastOne | None = None  # number for accelerate launch to start; None: any number


class LoraSettings(Section):
    """The adapter: arguments of peft.LoraConfig and FastLanguageModel.get_peft_model.

    A recipe with `lora: null` has no adapter and trains all weights.
    """

    r: AtLeastOne
    lora_alpha: AtLeastOne
    target_modules: str | list[str]
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    start_from: RunOrPath | None = None  # a run (name or folder) or adapter folder: it is trained further
    use_gradient_checkpointing: str | None = None  # "unsloth": Unsloth's own implementation


class DataSettings(Section):
    """The dataset (a name, file or folder), and which of its splits are for training, validation and test.

    A split may be a slice, as in "train[-300:]".
    """

    dataset: NameOrPath
    train_split: str
    test_splits: Splits  # at least one, to measure accuracy on
    max_prompt_length: AtLeastOne  # tokens; longer prompts are dropped, and the number is printed
    validation_split: str | None = None
    validation_rows: AtLeastOne | None = None  # if validation_split is None: the last rows of train_split
    min_pass_rate: Share | None = None  # training problems below this rate of the base policy are left out
    max_pass_rate: Share | None = None  # training problems above it are left out
    question_column: str | None = None  # for a dataset of your own
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
    samples: AtLeastOne = 8  # completions of each sampled problem, for pass@k and maj@k
    sampled_problems: AtLeastOne = 60


class OutputSettings(Section):
    runs_dir: str = "runs"
    resume: bool = True  # resume an unfinished run of the same recipe


class TrlSettings(Section):
    """Keys of TRL whose values are checked here; the others have the type that TRL gives them."""

    max_steps: AtLeastOne
    seed: int = Field(42, ge=0, lt=2**32)
    learning_rate: Finite = Field(1e-6, ge=0)
    save_strategy: Annotated[Literal["no", "steps", "epoch"], BeforeValidator(lambda v: v or "no")] = "steps"
    per_device_train_batch_size: AtLeastOne = 8
    gradient_accumulation_steps: AtLeastOne = 1


class GrpoSettings(TrlSettings):
    seed: int = Field(ge=0, lt=2**32)
    per_device_train_batch_size: AtLeastOne
    max_completion_length: AtLeastOne
    num_generations: int = Field(8, ge=2)  # a group needs two: the advantage compares completions
    num_iterations: AtLeastOne = 1
    temperature: Finite = Field(1.0, gt=0)  # greedy completions of a group would be equal
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none", True, False] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"


class SftSettings(TrlSettings):
    loss_type: Literal["nll", "dft", "chunked_nll"] | None = None
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = "bfd"


OURS = {"model": ModelSettings, "lora": LoraSettings, "data": DataSettings, "scoring": ScoringSettings,
        "evaluation": EvaluationSettings, "output": OutputSettings}  # fmt: skip


def section_keys(section: str) -> dict:
    """{key: pydantic field} of a section."""
    return (OURS.get(section) or trl_section(section)).model_fields


def unknown_key(section: str, key: str, known) -> str:
    """The end of a sentence about a key that is not among the `known` ones of a section ("": the recipe)."""
    for other in (*OURS, "grpo", "sft"):
        if other != section and key in section_keys(other):
            return f": it belongs in the section {other}."
    end = did_you_mean(key, known)
    trl = section in ("grpo", "sft") and end == "."
    return f": TRL {importlib.metadata.version('trl')} has none of that name." if trl else end


@cache
def trl_section(name: Literal["grpo", "sft"]) -> type[Section]:
    """The pydantic model of the section `grpo` or `sft`: TRL's keys and types, and the checks above."""
    fields = {}
    for file in ("transformers/training_args", "trl/trainer/base_config", f"trl/trainer/{name}_config"):
        package = importlib.util.find_spec(file.partition("/")[0])
        source = (Path(package.origin).parents[1] / f"{file}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "TrainingArguments")):
                found = [line for line in node.body if isinstance(line, ast.AnnAssign)]
                fields |= {line.target.id: ast.unparse(line.annotation) for line in found}
    base = GrpoSettings if name == "grpo" else SftSettings
    ours = {*base.model_fields, *RESERVED}
    fixed = FIXED | (FIXED_GRPO if name == "grpo" else {})
    others = {key: (_type(text), None) for key, text in fields.items() if key not in ours}
    for key, (kind, default) in others.items():
        if fields[key] in ("float", "float | None"):
            kind = Annotated[kind, Field(allow_inf_nan=False)]
        if key in RANGES:
            kind = Annotated[kind, RANGES[key]]
        if key in fixed or key in LAUNCHED:
            kind = Annotated[kind, BeforeValidator(_fixed(*fixed.get(key, ((None,), ""))))]
        others[key] = kind, default
    return create_model(name, __base__=base, **others)


def _fixed(works: tuple, why: str):
    """A validator that takes only the values that work; without a reason, the key needs several processes."""

    def check(value, info):
        if value in works:
            return works[0]
        if why:
            raise UserError(f"{info.field_name} = {value!r}: {why}; leave it out.")
        if value and processes() == 1:
            how = "accelerate launch (r1nb/launch has its configurations)"
            raise UserError(f"{info.field_name} = {value!r} needs several processes, which {how} starts.")
        return value

    return check


class _Names(dict):
    def __missing__(self, name):
        return getattr(builtins, name, str)


def _type(annotation: str):
    """The type of an annotation in TRL's source; a class of TRL's own is an enumeration of texts."""
    return eval(annotation, {}, _Names(Any=Any, Literal=Literal))
