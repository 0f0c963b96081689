"""The code of a training run with the values of its recipe, to read or to paste into an empty notebook."""

import json
from textwrap import wrap

from r1nb.machine.configs import grpo_arguments
from r1nb.paths import shown
from r1nb.policy.loading import adapter_arguments, loading_arguments, starting_adapter
from r1nb.policy.usage import NF4
from r1nb.recipes.settings import SHIPPED
from r1nb.rewards.registry import is_own, shipped_names
from r1nb.text.prompts import THINK

WIDTH = 79  # columns of a line


class Code(str):
    """Python source: Jupyter shows it in colours, and as a value in other code it stands as it is."""

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"

    __repr__ = str.__str__


BARE = Code()  # the value of an argument without a name, whose text is the key


def training_code(recipe, output_dir: str) -> dict[str, Code]:
    """The code that trains a recipe on this machine: {"model", "rewards", "adapter", "settings", "trainer"}.

    Joined, the five parts are a program that trains the same adapter as train.train(recipe). If the recipe
    gives a reason for a value, the reason stands beside it as a comment.
    """
    return {
        "model": _unsloth_model(recipe) if recipe.model.engine == "unsloth" else _plain_model(recipe),
        "rewards": _rewards(recipe),
        "adapter": _adapter(recipe),
        "settings": _settings(recipe, output_dir),
        "trainer": _trainer(recipe),
    }


def _code(*lines: str) -> Code:
    return Code("\n".join(lines))


def _call(function: str, arguments: dict, why: dict[str, str] | None = None, brackets: str = "()") -> Code:
    """A call with one argument a line, and the reason for it beside it, or above it if the line gets long."""
    lines = []
    for name, value in arguments.items():
        line = f"    {name}," if value is BARE else f"    {name}={_written(value)},".replace("\n", "\n    ")
        if len(line) > WIDTH and isinstance(value, list):
            items = "".join(f"        {_written(item)},\n" for item in value)
            line = f"    {name}=[\n{items}    ],"
        reason = (why or {}).get(name)
        if reason and len(line) + len(reason) + 4 <= WIDTH:
            line += f"  # {reason}"
        elif reason:
            lines += wrap(reason, WIDTH, initial_indent="    # ", subsequent_indent="    # ")
        lines.append(line)
    return _code(function + brackets[0], *lines, brackets[1])


def _written(value) -> str:
    """A value as Python source, strings in double quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False) if type(value) is str else repr(value)


def _plain_model(recipe) -> Code:
    base, arguments = recipe.model, {"base": BARE} | loading_arguments(recipe)
    imported, lines, options = "AutoModelForCausalLM, AutoTokenizer", [], ""
    if base.load_in_4bit:
        imported += ", BitsAndBytesConfig"
        four_bits = NF4 | {"bnb_4bit_compute_dtype": arguments["dtype"]}
        arguments["quantization_config"] = _call("BitsAndBytesConfig", four_bits)
    if base.torch_threads:
        lines.append("import torch")
    if base.model_name in SHIPPED:
        lines.append("from r1nb.machine import locate")
        arguments, options = arguments | {"**options": BARE}, ", **options"
    lines += [f"from transformers import {imported}", ""]
    if base.torch_threads:
        lines.append(f"torch.set_num_threads({base.torch_threads})")
    return _code(
        *lines,
        _base(base.model_name),
        _call("model = AutoModelForCausalLM.from_pretrained", arguments),
        f"tokenizer = AutoTokenizer.from_pretrained(base{options})",
    )


def _base(name: str) -> str:
    return f"base, options = locate({_written(name)})" if name in SHIPPED else f"base = {_written(name)}"


def _unsloth_model(recipe) -> Code:
    """Unsloth is imported before anything that it patches: TRL, PEFT and transformers."""
    name, standby = recipe.model.model_name, ["import os", "", 'os.environ["UNSLOTH_VLLM_STANDBY"] = "1"']
    return _code(
        *(standby if recipe.model.unsloth_vllm_standby else []),
        "import torch",
        "from unsloth import FastLanguageModel",
        *(["from r1nb.machine import locate"] if name in SHIPPED else []),
        "",
        _base(name),
        _call(
            "model, tokenizer = FastLanguageModel.from_pretrained",
            {"base": BARE} | loading_arguments(recipe),
        ),
    )


def _adapter(recipe) -> Code:
    lines = ["from transformers import set_seed", "", f"set_seed({recipe.grpo['seed']})"]
    if recipe.lora is None:
        return _code(*lines, "model.requires_grad_(True)  # no adapter: all weights train")
    if recipe.lora.start_from:
        adapter = shown(starting_adapter(recipe))
        arguments = {"model": BARE, _written(adapter): BARE, "is_trainable": True}
        return _code(
            "from peft import PeftModel", *lines, _call("model = PeftModel.from_pretrained", arguments)
        )
    arguments = adapter_arguments(recipe)
    if recipe.model.engine == "unsloth":
        arguments = {"model": BARE} | arguments
        return _code(*lines, _call("model = FastLanguageModel.get_peft_model", arguments, recipe.why))
    return _code(
        "from peft import LoraConfig, get_peft_model",
        *lines,
        _call("lora = LoraConfig", arguments, recipe.why),
        "model = get_peft_model(model, lora)",
    )


def _rewards(recipe) -> Code:
    """The list of reward functions; those without a file that are not r1nb's are defined in the notebook."""
    functions, reasons = {}, {}
    for key, reward in recipe.judge().rewards.items():
        name = f"find_reward({_written(key)})" if is_own(key) else key
        options = reward.used_options
        if options.pop("layout", None) == THINK:
            options["layout"] = Code("THINK")
        bound = ", ".join(f"{key}={_written(value)}" for key, value in options.items())
        function = f"{name}.bind({bound})" if bound else name
        functions[function], reasons[function] = BARE, recipe.why.get(key)
    imported = {"find_reward": BARE} if any(map(is_own, recipe.rewards)) else {}
    imported |= {name: BARE for name in recipe.rewards if name in shipped_names()}
    return _code(
        *([_call("from r1nb.rewards import ", imported)] if imported else []),
        *_layout_import(recipe),
        "",
        _call("reward_funcs = ", functions, reasons, "[]"),
    )


def _layout_import(recipe) -> list[str]:
    return ["from r1nb.text import THINK"] if recipe.layout == THINK else []


def _settings(recipe, output_dir: str) -> Code:
    arguments = {"output_dir": output_dir} | grpo_arguments(recipe)
    return _code("from trl import GRPOConfig", "", _call("args = GRPOConfig", arguments, recipe.why))


def _trainer(recipe) -> Code:
    data, split = recipe.data, recipe.data.train_split
    if not data.validation_split and "[" not in split:
        split += f"[:-{data.validation_rows or recipe.evaluation.validation_problems}]"
    rows = {_written(data.dataset): BARE, _written(split): BARE}
    rows |= {"question": data.question_column, "answer": data.answer_column} if data.question_column else {}
    rows |= {"layout": Code("THINK")} if recipe.layout == THINK else {}
    arguments = {
        "model": Code("model"),
        "processing_class": Code("tokenizer"),
        "reward_funcs": Code("reward_funcs"),
        "args": Code("args"),
        "train_dataset": Code("rows"),
    }
    return _code(
        "from r1nb import SharedPromptTrainer, load_rows",
        *_layout_import(recipe),
        "",
        _call("rows = load_rows", rows),
        "# trl.GRPOTrainer in its place trains the same, more slowly.",
        _call("trainer = SharedPromptTrainer", arguments),
        "trainer.train()",
    )
