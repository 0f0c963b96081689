"""What the GPU bench measures: each function is one part, and returns an object for its JSON file.

    python -m r1nb.studies.gpu_parts FUNCTION ARGUMENTS FILE     # how gpu_bench.py runs a part, in a process

Memory and steps are measured with random weights of the model's shape: nothing is downloaded, and nearly all
completions have the maximum length, which the plan assumes. Every second one is rewarded, so that no group is
dead and no trainer can skip work. Unsloth must be imported before what it patches, so heavy imports stand
where they are used.
"""

import contextlib
import io
import json
import os
import statistics
import sys
import threading
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

from r1nb.errors import Interrupted, UserError, first_line
from r1nb.evaluation.comparison import compare
from r1nb.machine import fitting, hardware
from r1nb.machine.engine import NO_VLLM, why_missing
from r1nb.machine.model_files import cannot_load, locate
from r1nb.machine.plan import estimate, load_empty
from r1nb.paths import read_json, write_json
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded, summarize
from r1nb.runs.run import Run
from r1nb.studies.gpu_meters import peak_memory, step_clock
from r1nb.studies.random_model import random_model
from r1nb.tasks.rows import drop_long_prompts, load_rows, load_splits

# What decides memory and time in Unsloth's notebook Llama3.1_(8B)-GRPO, as read on 2026-08-18 in
# github.com/unslothai/notebooks at bdda2efc. Its per_device_train_batch_size = 1 becomes 6 in Unsloth. Its
# completions have 768 tokens; with 256 the steps of each part fit into its time on a slow card (L4), too.
SIZES = {
    "max_seq_length": 1024, "max_completion_length": 256, "num_generations": 6,
    "per_device_train_batch_size": 6, "gradient_accumulation_steps": 1,
}  # fmt: skip
NOTEBOOK = {
    "engine": "unsloth", "fast_inference": True, "gpu_memory_utilization": 0.9, "unsloth_vllm_standby": True,
    "r": 32, "lora_alpha": 32, "max_lora_rank": 32, "optim": "paged_adamw_8bit",
}  # fmt: skip
PLAIN = {"engine": "transformers", "fast_inference": False, "use_vllm": False}
FIXED = {
    "dataset": "bundled", "max_prompt_length": 86, "rewards": {"r1nb.studies.gpu_parts:every_second": 1.0},
    "mask_truncated_completions": False, "eval_batch_size": 1, "save_strategy": "no",
}  # fmt: skip  # the longest prompt has 86 tokens
WAYS = {"r1nb": {}, "trl": PLAIN, "unsloth": NOTEBOOK}  # the last two train with trl.GRPOTrainer itself
WITHOUT_VLLM = NO_VLLM | {"use_vllm": False, "vllm_enable_sleep_mode": False}
BEGIN = time.monotonic()


def imports() -> dict:
    """Which packages of the GPU set cannot be imported here, and why."""
    wanted = ("unsloth", "bitsandbytes", "vllm", "vllm_bnb_plugin")  # Unsloth patches what comes after it
    return {"cannot_import": {name: why for name in wanted if (why := why_missing(name))}}


def weights_folder(folder: str, recipe: str) -> Path:
    """The folder for random weights of the shape of a recipe's model."""
    return Path(folder, "models", load_recipe(recipe).model.model_name.replace("/", "--"))


def weights(folder: str, recipe: str) -> dict:
    """Write random weights of the shape of a recipe's model, which `steps` loads."""
    random_model(load_recipe(recipe).model.model_name, weights_folder(folder, recipe))
    return {"recipe": recipe}


def steps(folder: str, recipe: str, way: str, changes: dict, count: int, stop_after: float) -> dict:
    """Train a few steps on random weights: the plan beside the peak memory, seconds and tokens of each step.

    `way` is one of WAYS; `changes` are settings of the recipe. There are at most `count` steps, and fewer if
    the next one would end later than `stop_after` seconds. Raises UserError if `way` needs Unsloth and it is
    missing.
    """
    model, weights = load_recipe(recipe).model.model_name, weights_folder(folder, recipe)
    fixed = FIXED | {"model_name": str(weights), "max_steps": count, "runs_dir": str(weights.parent)}
    if find_spec("bitsandbytes") is None:
        fixed["optim"] = "adamw_torch"
    chosen, said = choose(recipe, WAYS[way] | changes | fixed)
    if way == "unsloth" and chosen.model.engine != "unsloth":
        raise UserError("Unsloth is missing, so its notebook's settings cannot be measured.")
    random_model(model, weights)  # after `choose`, which imports Unsloth first
    plan = estimate(chosen, hardware.this_machine(), load_empty(chosen))
    from accelerate.utils import release_memory
    from trl import GRPOTrainer

    from r1nb.policy.loading import attach_lora, load_policy
    from r1nb.training.stages import grpo_trainer

    policy = load_policy(chosen)
    attach_lora(policy, chosen)
    rows = load_rows("bundled", "train").select(range(200))
    trainer_class = None if way == "r1nb" else GRPOTrainer
    clock = step_clock(BEGIN + stop_after)
    trainer = grpo_trainer(policy, rows, chosen, weights.parent / "output", [clock], trainer_class)
    if way == "r1nb":  # its checks are in the first steps and then in few: they would count too much
        trainer.canary.check = lambda *given: None
    release_memory()
    memory = peak_memory(trainer.train)
    lengths = [line["completions/mean_length"] for line in trainer.state.log_history if "loss" in line]
    seconds, tokens = clock.seconds, [length * chosen.batch_size for length in lengths]
    warm = slice(1 if len(seconds) > 1 else 0, None)  # the first step warms up
    return {
        "recipe": recipe, "way": way, "model": model, "engine": chosen.model.engine,
        "vllm": chosen.model.fast_inference, "load_in_4bit": chosen.model.load_in_4bit,
        "completions": chosen.batch_size, "max_completion_length": chosen.grpo["max_completion_length"],
        "said": said, "plan_gb": plan.peak_gb, "plan_parts_gb": [plan.sampling, plan.training],
        "plan_step_seconds": plan.step_seconds, **memory,
        "each_step_seconds": seconds, "each_step_tokens": tokens,
        "step_seconds": statistics.median(seconds[warm]),
        "tokens_per_second": sum(tokens[warm]) / sum(seconds[warm]),
    }  # fmt: skip


def every_second(completions, **columns) -> list[float]:
    """A reward that is 1 for every second completion."""
    return [float(i % 2) for i in range(len(completions))]


def download(recipe: str, changes: dict) -> dict:
    """Download the model and the data whose accuracy is measured; a second call goes on."""
    from huggingface_hub import snapshot_download

    chosen, said = choose(recipe, changes)
    name, begin = chosen.model.model_name, time.monotonic()
    path, _ = locate(name)
    load_splits(chosen.data, chosen.evaluation, chosen.rewards)
    try:
        if not Path(path).exists():
            snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"])
    except (OSError, ValueError) as error:
        raise UserError(cannot_load(name, error)) from error
    return {"model": name, "said": said, "seconds": time.monotonic() - begin}


def answer(folder: str, recipe: str, moment: str, changes: dict, stop_after: float) -> dict:
    """Answer the test problems greedily, "before" training or "after" it; {"more"} if time is up before."""
    chosen, said = choose(recipe, changes)
    split, rows = next(iter(load_splits(chosen.data, chosen.evaluation, chosen.rewards)[2].items()))
    run, p = Run.latest(chosen.output.runs_dir), None
    if moment == "after":
        before = answered_before(folder, chosen.model.model_name, rows["question"])
        if not run:
            raise UserError("Nothing is trained yet: the part accuracy-train comes first.")
    from r1nb.policy.loading import load_policy
    from r1nb.studies.real_model import keep_answers

    policy = load_policy(chosen)
    if moment == "after":
        policy.load_adapter(run.adapter)
    end = f"{policy.fingerprint()}.json"  # answers of another model are not taken
    file = Path(folder, f"answers-{moment}-{end}")
    graded = keep_answers(policy, rows, chosen, file, lambda: time.monotonic() - BEGIN > stop_after)
    if len(graded) < len(rows):
        return {"more": f"{len(graded)} of {len(rows)} problems are answered"}
    if moment == "after":
        p = compare(before, graded).p
    return {
        "recipe": recipe, "moment": moment, "model": chosen.model.model_name, "engine": chosen.model.engine,
        "dataset": chosen.data.dataset, "split": split, "said": said, **summarize(graded),
        "p": p, "answers": file.name,
    }  # fmt: skip


def answered_before(folder: str, model: str, questions) -> list[Graded]:
    """The answers before training; raises UserError if they are not all there, for this model and data."""
    part = read_json(Path(folder, "accuracy-before.json"), {})
    kept = read_json(Path(folder, part.get("answers", "none")), {}, dict[int, Graded])
    graded = [kept[i] for i in sorted(kept)]
    if part.get("model") != model or [g.question for g in graded] != list(questions):
        raise UserError("These problems are not all answered before training: accuracy-before comes first.")
    return graded


def train(folder: str, recipe: str, changes: dict, minutes: float, stop_after: float) -> dict:
    """Train for so many minutes in all, at a constant rate; {"more"} if this process has no more time."""
    chosen, said = choose(recipe, changes)
    rows = load_splits(chosen.data, chosen.evaluation, chosen.rewards)[0]
    from transformers import TrainerCallback

    from r1nb.policy.loading import attach_lora, load_policy
    from r1nb.runs.activity import ask_to_stop
    from r1nb.training.callbacks import Recorder, Watchdog
    from r1nb.training.resume import begin_run, resumable
    from r1nb.training.stages import grpo_trainer

    policy = load_policy(chosen)
    limit = chosen.data.max_prompt_length
    rows = drop_long_prompts(rows, policy.tokenizer, limit, chosen.problems_per_generation)
    run = begin_run(chosen, rows)
    attach_lora(policy, chosen)
    recorder = Recorder(run)

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.begin = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            now, here = time.perf_counter(), time.monotonic() - BEGIN
            if now - recorder.start > 60 * minutes or here + now - self.begin > stop_after:
                ask_to_stop(run)

    observers = [recorder, Clock(), Watchdog(run, chosen.judge())]
    trainer = grpo_trainer(policy, rows, chosen, run.folder, observers)
    with contextlib.suppress(Interrupted), resumable(trainer, run) as checkpoint:
        trainer.train(resume_from_checkpoint=checkpoint)
    taken, seconds = (values[-1] for values in run.series("time"))
    if seconds < 60 * minutes and taken < chosen.grpo["max_steps"]:
        return {"more": f"{seconds / 60:.1f} of {minutes} minutes are trained, {taken} steps"}
    policy.save_trained(run)
    return {
        "recipe": recipe, "model": chosen.model.model_name, "engine": chosen.model.engine, "said": said,
        "minutes": seconds / 60, "steps": taken, "completions": taken * chosen.batch_size,
        "history": run.history(), "trains_with": type(trainer).__mro__[1].__module__,  # or Unsloth
        "canary_checks": trainer.canary.checks, "canary": trainer.canary.verdict,
    }  # fmt: skip


def choose(recipe: str, changes: dict) -> tuple:
    """(the recipe as it runs on this machine, what was printed about it, such as what replaces Unsloth)."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        chosen = fitting.choose_recipe(recipe, **changes)
    print(printed.getvalue())
    return chosen, printed.getvalue().splitlines()


def attempt(part, given: dict) -> dict:
    """The result of a part; {"failed": why} after an error.

    If vLLM could not start it is {"more", "with"}, with the arguments for a new process without vLLM.
    """
    given = dict(given)
    no_vllm = given.pop("no_vllm", None)  # why vLLM could not start in the process before
    try:
        return part(**given) | ({"no_vllm": no_vllm} if no_vllm else {})
    except Exception as error:  # whatever it is, the other parts go on
        traceback.print_exc()
        why = ("" if isinstance(error, UserError) else f"{type(error).__name__}: ") + first_line(error)
    if no_vllm or not why.startswith("vLLM could not start"):
        return {"failed": why}
    why = why.partition(": restart")[0]
    again = {"changes": given["changes"] | WITHOUT_VLLM, "no_vllm": why}
    return {"more": f"{why}, so it is done without vLLM", "with": again}


def main(function: str, arguments: str, file: str) -> None:
    # When the process that started this one has ended, in whatever way, the pipe closes and this one ends.
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    parts = {part.__name__: part for part in (imports, weights, steps, download, answer, train)}
    result = attempt(parts[function], json.loads(arguments))
    write_json(Path(file), result | {"process_seconds": time.monotonic() - BEGIN})


if __name__ == "__main__":
    main(*sys.argv[1:])
