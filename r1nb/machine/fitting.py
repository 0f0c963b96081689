"""Choose the recipe for a machine, and fit it to the model that the user names."""

import itertools
import math
from pathlib import Path

from r1nb.errors import UserError
from r1nb.machine.configs import check_configs
from r1nb.machine.engine import AMPERE, fall_back, use_one_gpu, without_standby, without_vllm
from r1nb.machine.hardware import GB, LADDER, Machine, require, suggest_recipe, this_machine
from r1nb.machine.known_models import PACKED, published_config, short_name, thinks
from r1nb.machine.memory import empty_model, weight_bytes
from r1nb.machine.model_files import load_config
from r1nb.machine.plan import LOWERED, changed, estimate, load_empty
from r1nb.machine.refusals import check_card
from r1nb.recipes.loading import environment_overrides, load_recipe
from r1nb.recipes.recipe import build_recipe

SPARE = 0.95  # of the card's memory: the plan's formulas are not exact
MOST = 0.6  # of the card's memory for weights in 16 bits: with more, the cache is small and sampling slow
TINY, ON_CPU, SMALL = 1e8, 1.05e9, 2e9  # parameters
AT_ONCE = "as many completions at once as a step samples"
ROOM = 2048  # tokens that a thinking model needs for most thoughts about a problem of GSM8K
MEMORY = (*LOWERED, "gradient_accumulation_steps", "num_generations", "load_in_4bit", "fast_inference",
          "lora")  # fmt: skip
# Modules of the language model that get an adapter, where their names differ from the recipes'.
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
NOT_VISION = r"(?!.*vision_tower).*\.(q|k|v|o|gate|up|down)_proj"


def choose_recipe(name: str = "auto", /, **overrides):
    """The recipe called `name`, or for "auto" the one for this machine; prints which one and why.

    With "auto" and a model_name, the recipe is fitted to that model (fit). Libraries that are not installed
    are replaced, and a printed line says so (engine.fall_back). Raises UserError if the recipe cannot run
    here or TRL refuses it.
    """
    if _wanted(overrides.get("recipe", name)) != "auto":
        load_recipe(name, **overrides)  # names a mistake before torch is imported
    use_one_gpu()
    machine = this_machine()
    suggested, reason = suggest_recipe(machine)
    wanted = _wanted(overrides.get("recipe", name), machine)
    recipe = recipe_for(name, machine, **overrides)
    require(recipe, machine)
    print(f"This machine: {machine}.")
    fitted = "\n" in recipe.about  # fit gives its reasons there
    why = f" ({reason})" if wanted == suggested and not fitted else ""
    named = "" if fitted or recipe.name in (wanted, Path(wanted).stem) else f", runs named {recipe.name}"
    print(f"Recipe {wanted if named else recipe.name}{named}: {recipe.about}{why}")
    recipe = fall_back(recipe)
    check_configs(recipe)
    return recipe


def recipe_for(name: str, machine: Machine, /, **overrides):
    """The recipe called `name`, or the one that R1NB_SET names; "auto" means the one for the machine."""
    wanted, given = overrides.pop("recipe", name), overrides | environment_overrides()
    given = {key.rpartition(".")[2]: value for key, value in given.items() if not key.startswith("sft.")}
    given = (given["lora"] if isinstance(given.get("lora"), dict) else {}) | given
    if _wanted(wanted) == "auto" and given.get("model_name"):
        return fit(machine, given, overrides)
    return without_standby(load_recipe(_wanted(wanted, machine), **overrides), machine)


def _wanted(name: str, machine: Machine | None = None) -> str:
    """The name of the recipe that `name` or R1NB_SET asks for; "auto" is that for the machine, if given."""
    wanted = str(environment_overrides().get("recipe", name))
    return suggest_recipe(machine)[0] if machine and wanted == "auto" else wanted


def fit(machine: Machine, given: dict, overrides: dict):
    """The recipe for the model that the user names, on a machine; its `about` gives each decision's reason.

    It begins with the recipe for a card of this size, and takes the first of _tries whose plan fits. Keys
    that the user has `given` are not changed. Raises UserError if no plan fits.
    """
    if (base := _base(machine, str(given["model_name"]))) == "tiny-cpu":
        return load_recipe(base, **overrides)
    group = given.get("num_generations", 16 if machine.gpu_memory_gb >= LADDER["llama31-8b-80gb"] else 8)
    rows = max(1, group) if isinstance(group, int) else 8  # load_recipe refuses another group
    start = {"max_seq_length": 2**20, "num_generations": group, "per_device_train_batch_size": rows}
    whole = {} if machine.gpu else {"gradient_accumulation_steps": rows}  # until _tries chooses
    recipe = without_standby(load_recipe(base, **start | whole | overrides), machine)
    check_card(recipe, machine)  # before Unsloth is imported
    fixed = _without(_for_model(recipe, machine, load_empty(recipe), given), given)
    if "fast_inference" in fixed:
        recipe = without_vllm(recipe)
    empty = load_empty(_changed(recipe, fixed, given))  # with the adapter's modules
    # The cache should hold all completions of a step at once; if that is impossible, at least a group.
    tries = _tries(recipe, machine, empty, base, given)
    for least, tried in itertools.product(("batch_size", "group_size"), tries):
        decided = fixed | _without(tried, given)
        decided |= _thinking(_changed(recipe, decided, given), given)
        made = _changed(recipe, decided, given)
        plan = estimate(made, machine, empty)
        if plan.peak_gb <= SPARE * plan.card_gb and plan.completions >= getattr(made, least):
            if share := decided.get("gpu_memory_utilization"):
                why = f"vLLM's cache then holds {plan.completions} completions; a step has {made.batch_size}"
                decided["gpu_memory_utilization"] = share[0], why
            return _described(made, decided, base, machine, given)
    keys = ", ".join(key for key in MEMORY if given.get(key, True) is not True)
    remedy = f"leave out {keys}, or choose a smaller model" if keys else "choose a smaller model"
    name, where = short_name(recipe.model.model_name), machine.gpu or "this machine"
    raise UserError(f"{name} does not fit {where}: {remedy}.")


def _base(machine: Machine, model: str) -> str:
    """The recipe to begin with: of LADDER for the card's size, or for a processor by the model's.

    Raises UserError if the model is too large for a processor.
    """
    if machine.gpu:
        room = max(machine.gpu_memory_gb, min(LADDER.values()))
        return [name for name, gb in LADDER.items() if gb <= room][-1]
    if (size := empty_model(published_config(model) or load_config(model)).num_parameters()) > ON_CPU:
        raise UserError(
            f"{short_name(model)} has {size / 1e9:.1f} billion parameters, too many to train on a processor: "
            "choose a model of up to 1 billion, such as unsloth/Qwen3-0.6B, or see what a card needs "
            f"(r1nb plan auto --card 4090 model_name={model})."
        )
    return "tiny-cpu" if size < TINY else "qwen25-0.5b-cpu"


def _for_model(recipe, machine: Machine, empty, given: dict) -> dict:
    """{key: (value, reason)} for what the model itself decides."""
    text, found = empty.config.get_text_config(), {}
    if recipe.lora and text.model_type == "phi3":
        found["target_modules"] = FUSED, "this model has one module for q, k and v, and one for gate and up"
    if recipe.lora and text is not empty.config:
        found["target_modules"] = NOT_VISION, "only the language model learns, not the part that reads images"
    if not machine.gpu:
        return found
    group, same = recipe.group_size, "few questions get the same reward for all, which would teach nothing"
    found["num_generations"] = group, f"with {group} answers, {same}"
    found["per_device_train_batch_size"] = group, f"one problem x {group} completions at a time"
    if empty.num_parameters() < SMALL:
        found["learning_rate"] = 3e-5, "the rate of qwen25-0.5b-cpu, chosen on validation rows"
    no_vllm = {"smollm3": "Unsloth's vLLM is untested with this model (fast_inference=true tries it)"}
    if machine.capability and machine.capability < AMPERE:
        no_vllm["gemma3_text"] = "vLLM refuses this model in float16, and this card has no bfloat16"
    if why := no_vllm.get(text.model_type):
        found["fast_inference"] = False, f"{why}; a step takes several times as long as planned"
    if why or not recipe.model.fast_inference:
        found["eval_batch_size"] = recipe.batch_size, AT_ONCE
    return found


def _tries(recipe, machine: Machine, empty, base: str, given: dict):
    """{key: (value, reason)} for what memory decides, best first."""
    if not machine.gpu:
        group, own = recipe.group_size, {key: recipe.grpo[key] for key in given.keys() & recipe.grpo.keys()}
        for size in (16, 8, 4, 2, group):  # only group may suit the gradient_accumulation_steps of the user
            rows = own.get("per_device_train_batch_size", size)
            whole = math.lcm(rows, group)  # completions; a step has about 64
            steps = own.get("gradient_accumulation_steps", max(1, 64 // whole) * whole // rows)
            if (together := rows * steps) % group == 0:
                yield {
                    "per_device_train_batch_size": (rows, f"{rows} completions at a time"),
                    "gradient_accumulation_steps": (steps, f"{together // group} problems x {group} a step"),
                    "eval_batch_size": (together, AT_ONCE),
                }
        return
    model, length, gb = recipe.model, recipe.grpo["max_completion_length"], weight_bytes(empty, False, 2) / GB
    takes = f"{gb:.1f} of {machine.gpu_memory_gb:.1f} GB"
    bits = [(True, f"in 16 bits the weights would take {takes}")]
    if gb <= MOST * machine.gpu_memory_gb:
        bits.insert(0, (False, f"in 16 bits the weights take {takes}, and are not rounded"))
    if PACKED.search(model.model_name):
        bits = [(True, "the model's files have 4 bits")]
    lengths = [(length, f"that of {base}")]
    if empty.num_parameters() < SMALL:
        lengths.insert(0, (2 * length, f"twice that of {base}: a small model needs less memory and time"))
    shares = [{}]
    if model.fast_inference:  # the reason follows when the size of the cache is known
        own = model.gpu_memory_utilization
        steps = [round(own - step / 20, 5) for step in (*range(12), *range(-1, -7, -1))]
        shares = [{"gpu_memory_utilization": (share, "")} for share in steps if 0.2 < share <= max(own, 0.8)]
    for in_4bit, limit, share in itertools.product(bits, lengths, shares):
        yield {"load_in_4bit": in_4bit, "max_completion_length": limit} | share


def _thinking(recipe, given: dict) -> dict:
    """{key: (value, reason)} for a known model whose chat template can turn its own thinking off."""
    model, room = recipe.model.model_name, recipe.grpo["max_completion_length"]
    if {"layout", "chat_template_kwargs"} & given.keys() or not thinks(model):
        return {}
    if room >= ROOM:
        return {"layout": ("think", f"{room} tokens have room for the model's own thinking, in its own tags")}
    why = f"the model's own thoughts are often longer than {room} tokens; layout=think turns them on"
    return {"chat_template_kwargs": ({"enable_thinking": False}, why)}


def _described(recipe, decided: dict, base: str, machine: Machine, given: dict):
    """The recipe with a name of its own, and with the reasons of what was decided."""
    short = short_name(recipe.model.model_name)
    reasons = {key: reason for key, (_, reason) in decided.items()}
    lines = [f"{key} = {value!r}: {reason}" for key, (value, reason) in decided.items()]
    steps = {"max_steps": f"as in {base}"} if "max_steps" not in given else {}
    own = f"{short}-{base.rpartition('-')[2]}".lower()
    raw = recipe.model_dump() | {
        "name": own if given.get("name") is None else recipe.name,
        "about": "\n  ".join([f"{short} on {machine.gpu or 'a processor'}, like {base}, but", *lines]),
        "why": recipe.why | steps | reasons,
    }
    return build_recipe(raw)


def _changed(recipe, decided: dict, given: dict):
    """The recipe with the decided values, and room for prompt and completion."""
    made = changed(recipe, {key: value for key, (value, _) in decided.items()})
    room = made.data.max_prompt_length + made.grpo["max_completion_length"]
    return made if "max_seq_length" in given else changed(made, {"max_seq_length": room})


def _without(decided: dict, given: dict) -> dict:
    return {key: each for key, each in decided.items() if key not in given}
