"""The keys of a recipe: one class a section, beside TRL's GRPOConfig and SFTConfig."""

import dataclasses
import typing

RESERVED = {"output_dir", "reward_weights", "log_completions", "num_completions_to_print", "disable_tqdm",
            "save_only_model"}  # fmt: skip
# Names that are no folder of the user's.
SHIPPED = ("bundled", "bundled-countdown", "tiny-policy", "tiny-countdown", "smollm2-135m")
CHOICES = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none", "True", "False"),
    "importance_sampling_level": ("token", "sequence"),
}
AT_LEAST = {"max_steps": 1, "max_completion_length": 1, "per_device_train_batch_size": 1, "seed": 0,
            "gradient_accumulation_steps": 1, "num_iterations": 1, "learning_rate": 0}  # fmt: skip


@dataclasses.dataclass
class ModelSettings:
    """How the base model is loaded: arguments of FastLanguageModel.from_pretrained, and engine."""

    model_name: str
    engine: typing.Literal["transformers", "unsloth"]
    max_seq_length: int  # tokens of prompt and completion
    dtype: typing.Literal["float32", "bfloat16", "float16"] | None = None  # None: by the machine
    load_in_4bit: bool = False
    fast_inference: bool = False  # Unsloth: generate with vLLM
    max_lora_rank: int | None = None
    gpu_memory_utilization: float | None = None
    unsloth_vllm_standby: bool = False  # vLLM's cache leaves the card while it trains
    torch_threads: int | None = None  # a tiny model slows down on many cores
    processes: int | None = None  # that accelerate launch must start; None: as many as it did


@dataclasses.dataclass
class LoraSettings:
    """The adapter: arguments of peft.LoraConfig and FastLanguageModel.get_peft_model.

    A recipe with `lora: null` has none, and trains all weights.
    """

    r: int
    lora_alpha: int
    target_modules: str | list[str]
    lora_dropout: float = 0.0
    start_from: str | None = None  # a finished run, by name or folder, whose adapter is trained on
    use_gradient_checkpointing: str | None = None  # Unsloth's own, "unsloth"


@dataclasses.dataclass
class DataSettings:
    """The rows: a dataset by name, file or folder, and which of its splits serve what.

    A split may be a slice, as in "train[-300:]".
    """

    dataset: str
    train_split: str
    test_splits: list[str]
    max_prompt_length: int  # tokens; longer prompts are dropped, aloud
    validation_split: str | None = None
    validation_rows: int | None = None  # without such a split: the last rows of training
    min_pass_rate: float | None = None  # of the base policy, on a problem that is trained on
    max_pass_rate: float | None = None
    question_column: str | None = None  # of a dataset of your own
    answer_column: str | None = None
    layout: typing.Literal["reasoning", "think"] = "reasoning"  # tags and system prompt


@dataclasses.dataclass
class ScoringSettings:
    """What some rewards must be told."""

    language: str = "en"  # of language_reward_func
    overlong_cache: int | None = None  # tokens; None: the last fifth of max_completion_length
    judge_url: str | None = None  # of judge_reward_func, an OpenAI-compatible endpoint
    judge_model: str | None = None


@dataclasses.dataclass
class EvaluationSettings:
    """Greedy accuracy on problems that are not trained on."""

    eval_every: int  # steps between looks at the validation slice
    validation_problems: int
    test_problems: int  # of each test split
    eval_batch_size: int
    samples: int = 8  # of each of sampled_problems, for pass@k and maj@k
    sampled_problems: int = 60


@dataclasses.dataclass
class OutputSettings:
    runs_dir: str = "runs"
    resume: bool = True  # an unfinished run of the same recipe goes on


def sections() -> dict[str, type]:
    """The recipe's sections and the classes whose fields are their keys."""
    from trl import GRPOConfig, SFTConfig

    return {
        "model": ModelSettings,
        "lora": LoraSettings,
        "data": DataSettings,
        "sft": SFTConfig,
        "grpo": GRPOConfig,
        "scoring": ScoringSettings,
        "evaluation": EvaluationSettings,
        "output": OutputSettings,
    }
