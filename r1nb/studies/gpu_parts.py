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
import shutil
import statistics
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from r1nb.errors import Interrupted, UserError, first_line
from r1nb.evaluation.comparison import compare
from r1nb.machine import fitting, hardware
from r1nb.machine.engine import why_missing
from r1nb.machine.known_models import published_config
from r1nb.machine.memory import empty_model
from r1nb.machine.model_files import load_config
from r1nb.machine.plan import estimate, load_empty
from r1nb.paths import DATA, read_json, write_json
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded, summarize
from r1nb.runs.run import Run
from r1nb.tasks.rows import drop_long_prompts, load_rows, load_splits

# What decides memory and time in Unsloth's notebook Llama3.1_(8B)-GRPO, as read on 2026-08-18 in
# github.com/unslothai/notebooks at bdda2efc. Its per_device_train_batch_size = 1 becomes 6 in Unsloth.
SIZES = {
    "max_seq_length": 1024, "max_completion_length": 768, "num_generations": 6,
    "per_device_train_batch_size": 6, "gradient_accumulation_steps": 1,
}  # fmt: skip
NOTEBOOK = {
    "engine": "unsloth", "fast_inference": True, "gpu_memory_utilization": 0.9, "unsloth_vllm_standby": True,
    "r": 32, "lora_alpha": 32, "max_lora_rank": 32, "optim": "paged_adamw_8bit",
}  # fmt: skip
PLAIN = {"engine": "transformers", "fast_inference": False, "use_vllm": False}
FIXED = {
    "dataset": "bundled", "max_prompt_length": 192, "rewards": {"r1nb.studies.gpu_parts:every_second": 1.0},
    "mask_truncated_completions": False, "eval_batch_size": 1, "save_strategy": "no",
}  # fmt: skip
WAYS = {"r1nb": {}, "trl": PLAIN, "unsloth": NOTEBOOK}  # the last two train with trl.GRPOTrainer itself
BEGIN = time.monotonic()


def environment(folder: str) -> dict:
    """The card, its driver, versions, what else uses the card, free disk, and what cannot be imported."""
    facts = {"began": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}
    facts["disk_free_gb"] = shutil.disk_usage(folder).free / hardware.GB
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        asked = ("name", "driver_version", "memory.total", "memory.used", "power.limit", "compute_cap")
        command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        facts["nvidia_smi"] = [dict(zip(asked, line.split(", "), strict=False)) for line in lines]
    wanted = ("unsloth", "bitsandbytes", "vllm", "vllm_bnb_plugin")  # Unsloth patches what comes after it
    facts["cannot_import"] = {name: why for name in wanted if (why := why_missing(name))}
    import torch

    facts |= hardware.environment() | {"cuda": torch.version.cuda, "gpu": hardware.this_machine().gpu}
    return facts


def steps(folder: str, recipe: str, way: str, changes: dict, count: int) -> dict:
    """Train a few steps on random weights: the plan beside the peak memory, seconds and tokens of each step.

    `way` is one of WAYS; `changes` are settings of the recipe. Raises UserError if `way` needs Unsloth and it
    is missing.
    """
    model = load_recipe(recipe).model.model_name
    weights = Path(folder, "models", model.replace("/", "--"))
    fixed = FIXED | {"model_name": str(weights), "max_steps": count, "runs_dir": str(weights.parent)}
    chosen, said = choose(recipe, changes | WAYS[way] | fixed)
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
    trainer = grpo_trainer(policy, rows, chosen, weights.parent / "output", trainer_class=trainer_class)
    release_memory()
    memory = peak_memory(trainer.train)
    logs = [line for line in trainer.state.log_history if "step_time" in line]
    tokens = [line["completions/mean_length"] * chosen.batch_size for line in logs]
    seconds = [line["step_time"] for line in logs]
    return {
        "recipe": recipe, "way": way, "model": model, "engine": chosen.model.engine,
        "vllm": chosen.model.fast_inference, "load_in_4bit": chosen.model.load_in_4bit,
        "completions": chosen.batch_size, "max_completion_length": chosen.grpo["max_completion_length"],
        "said": said, "plan_gb": plan.peak_gb, "plan_parts_gb": [plan.sampling, plan.training],
        "plan_step_seconds": plan.step_seconds, **memory,
        "each_step_seconds": seconds, "each_step_tokens": tokens,
        "step_seconds": statistics.median(seconds[1:]),  # the first step warms up
        "tokens_per_second": sum(tokens[1:]) / sum(seconds[1:]),
    }  # fmt: skip


def every_second(completions, **columns) -> list[float]:
    """A reward that is 1 for every second completion."""
    return [float(i % 2) for i in range(len(completions))]


def answer(folder: str, recipe: str, moment: str, changes: dict, stop_after: float) -> dict:
    """Answer the test problems greedily, "before" training or "after" it; {"more"} if time is up before."""
    chosen, said = choose(recipe, changes)
    split, rows = next(iter(load_splits(chosen.data, chosen.evaluation, chosen.rewards)[2].items()))
    run = Run.latest(chosen.output.runs_dir)
    if moment == "after" and not run:
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
    before = read_json(Path(folder, f"answers-before-{end}"), {}, dict[int, Graded])
    return {
        "recipe": recipe, "moment": moment, "model": chosen.model.model_name, "engine": chosen.model.engine,
        "dataset": chosen.data.dataset, "split": split, "said": said, **summarize(graded),
        "p": compare([before[i] for i in range(len(rows))], graded).p if moment == "after" else None,
    }  # fmt: skip


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
        def on_step_end(self, args, state, control, **kwargs):
            trained, here = time.perf_counter() - recorder.start, time.monotonic() - BEGIN
            if trained > 60 * minutes or here > stop_after:
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
        "minutes": minutes, "seconds": seconds, "steps": taken, "completions": taken * chosen.batch_size,
        "history": run.history(),
    }  # fmt: skip


def choose(recipe: str, changes: dict) -> tuple:
    """(the recipe as it runs on this machine, what was printed about it, such as what replaces Unsloth)."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        chosen = fitting.choose_recipe(recipe, **changes)
    print(printed.getvalue())
    return chosen, printed.getvalue().splitlines()


def random_model(name: str, path: Path) -> None:
    """Write a model with the shape of `name` and random weights into a folder, unless it is there already.

    The layers are written one by one, since a machine with a small card may have less memory than the model.
    The tokenizer is the tiny policy's, with as many tokens as the model.
    """
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return
    import torch
    from safetensors.torch import save_file

    config = published_config(name) or load_config(name)
    empty = empty_model(config)
    path.mkdir(parents=True, exist_ok=True)
    config.update({"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None, "dtype": "bfloat16"})
    config.max_position_embeddings = 8192
    config.architectures = [type(empty).__name__]
    config.save_pretrained(path)
    tokenizer = json.loads((DATA / "tiny-policy" / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words |= {f"w{number}": number for number in range(len(words), config.vocab_size)}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    for file in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DATA / "tiny-policy" / file, path)
    files, noise = {}, torch.randn(max(weight.numel() for weight in empty.parameters())).bfloat16() * 0.02
    for name, weight in empty.named_parameters():  # tied weights once
        files.setdefault("-".join(name.split(".")[:3]) + ".safetensors", {})[name] = weight.shape
    for file, shapes in files.items():
        weights = {name: noise[: shape.numel()].view(shape).clone() for name, shape in shapes.items()}
        weights |= {name: torch.ones_like(w) for name, w in weights.items() if w.dim() == 1}  # of norms
        save_file(weights, path / file, {"format": "pt"})
    where = {name: file for file, shapes in files.items() for name in shapes}
    write_json(index, {"metadata": {}, "weight_map": where})  # last: now the folder is complete


def peak_memory(action) -> dict:
    """Call `action`; {"peak_gb", "reserved_gb"} meanwhile, measured fifty times a second.

    With a card: of the card, by all processes, with the CUDA context; `reserved_gb` is PyTorch's own figure.
    Without one: of this process (its resident memory).
    """
    import psutil
    import torch

    here, process, ended = torch.cuda.is_available(), psutil.Process(), threading.Event()
    used = [0]

    def watch() -> None:
        while not ended.wait(0.02):
            free, total = torch.cuda.mem_get_info() if here else (0, process.memory_info().rss)
            used.append(total - free)

    threading.Thread(target=watch, daemon=True).start()
    if here:
        torch.cuda.reset_peak_memory_stats()
    action()
    ended.set()
    reserved = torch.cuda.max_memory_reserved() / hardware.GB if here else None
    return {"peak_gb": max(used) / hardware.GB, "reserved_gb": reserved}


def main(function: str, arguments: str, file: str) -> None:
    # When the process that started this one has ended, in whatever way, the pipe closes and this one ends.
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    parts = {part.__name__: part for part in (environment, steps, answer, train)}
    try:
        result = parts[function](**json.loads(arguments))
    except Exception as error:  # whatever it is, the other parts go on
        traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        result = {"failed": kind + first_line(error)}
    write_json(Path(file), result | {"process_seconds": time.monotonic() - BEGIN})


if __name__ == "__main__":
    main(*sys.argv[1:])
