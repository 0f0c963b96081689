"""What a GPU run costs, beside plain TRL and beside the plan: `python -m r1nb.studies.bench gpu`.

Each measurement is a process of its own, so that none inherits another's memory. Three CSV files come out:
gpu-cost (10 steps of Llama-3.1-8B's shape with the article's settings, by Unsloth with and without vLLM and
by plain TRL), gpu-cards (the longest completions that each preset can train on an emulated card), gpu-gsm8k
(SmolLM2-135M on GSM8K's whole test split, before and after).

An emulated card has the memory of the smaller one and nothing else of it: not its speed, not its lack of
bfloat16, not what its driver keeps, and vLLM's own allocator does not heed PyTorch's limit.
"""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.machine.hardware import GB, LADDER, choose_recipe, this_machine
from r1nb.machine.model_files import load_config
from r1nb.machine.plan import estimate
from r1nb.paths import DATA, runs_folder
from r1nb.recipes.recipe import load_recipe
from r1nb.tasks.rows import load_split
from r1nb.train import train

STEPS = 10
ENGINES = {
    "unsloth and vllm": {},
    "unsloth": {"fast_inference": False, "use_vllm": False},
    "trl": {"engine": "transformers", "fast_inference": False, "use_vllm": False},
}
LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
GSM8K = "sft.max_steps=300 sft.use_cpu=false max_steps=200 use_cpu=false test_problems=1319"


class PeakMemory(threading.Thread):
    """The most memory in use while it runs, in GB: of the card, or of this process without one."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak_gb, self._stopped = 0.0, threading.Event()

    def run(self) -> None:
        import psutil
        import torch

        while not self._stopped.wait(0.02):
            used = psutil.Process().memory_info().rss
            if torch.cuda.is_available():
                free, total = torch.cuda.mem_get_info()
                used = total - free
            self.peak_gb = max(self.peak_gb, used / GB)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._stopped.set()
        self.join()


def random_llama(folder: Path, shape: dict, dtype: str = "bfloat16") -> Path:
    """A Llama of a shape with random weights, with the tiny policy's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")
    config = LlamaConfig(**shape, eos_token_id=tokenizer.eos_token_id)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(recipe) -> dict:
    """Train a recipe; seconds a step, tokens a second, peak memory, and what the plan said.

    The first step, which compiles, is not in the time. The KV pool that vLLM is told to take is in
    both figures of memory.
    """
    from r1nb.machine.out_of_memory import out_of_memory_in_words, remedy_for
    from r1nb.policy.loading import attach_lora, load_policy
    from r1nb.training.callbacks import Recorder
    from r1nb.training.resume import new_run
    from r1nb.training.stages import grpo_trainer

    machine = this_machine()
    planned = estimate(recipe, machine, load_config(recipe.model.model_name))
    with PeakMemory() as memory, out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        policy = load_policy(recipe, say=lambda line: None)
        rows = load_split(recipe.data, recipe.data.train_split)
        attach_lora(policy, recipe)
        run = new_run(recipe)
        trainer = grpo_trainer(policy, rows, recipe, run.folder, [Recorder(run)])
        trainer.train()
    seconds = run.series("step_time")[1][1:]
    tokens = run.series("num_tokens")[1]
    return {
        "seconds a step": sum(seconds) / len(seconds),
        "tokens a second": (tokens[-1] - tokens[0]) / sum(seconds),
        "peak GB": memory.peak_gb,
        "planned GB": planned.peak_gb,
    }


def longest(fits, length: int) -> int:
    """The longest of `length`, doubled four times at most, that fits; 0 if not even the first does."""
    best = 0
    for _ in range(5):
        if not fits(length):
            break
        best, length = length, 2 * length
    return best


def emulated(name: str, card_gb: float, length: int, folder: str) -> dict:
    """What one step of a preset costs on a card of which only `card_gb` may be used."""
    import torch

    recipe = load_recipe(name, **_overrides(folder), **lengths(name, length), max_steps=2)
    share = card_gb / this_machine().gpu_memory_gb
    torch.cuda.set_per_process_memory_fraction(share)
    os.environ["UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE"] = "1"  # or Unsloth sizes it for the whole card
    recipe.model.gpu_memory_utilization *= share
    return measure(recipe)


def lengths(name: str, length: int) -> dict:
    """The overrides for completions of another length."""
    prompt = load_recipe(name).data.max_prompt_length
    return {"max_completion_length": length, "max_seq_length": prompt + length}


def _overrides(folder: str) -> dict:
    """The random model, the bundled problems, and runs beside it."""
    data = {"dataset": "bundled", "validation_split": "validation", "test_splits": ["test"]}
    return {"model_name": folder, "runs_dir": f"{folder}-runs", "save_strategy": "no", **data}


def in_a_process(task: str, *arguments) -> dict | None:
    """The figures of one task, from a process of its own; None if it failed, which is said."""
    command = [sys.executable, "-m", "r1nb.studies.bench", task, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{task} {' '.join(map(str, arguments[:-1]))}: {reason}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench_gpu(results: Path) -> None:
    """All three measurements; each CSV file is written as soon as it is complete."""
    import pandas

    machine = this_machine()
    if not machine.gpu:
        raise UserError(
            "`r1nb.studies.bench gpu` measures a CUDA GPU, and this machine has none; see `make bench`."
        )
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "llama")
        if in_a_process("model", model) is None:
            raise UserError("Without the random model there is nothing to measure.")
        rows = [{"engine": e, **(in_a_process("cost", e, model) or {})} for e in ENGINES]
        _write(pandas.DataFrame(rows), results / "gpu-cost.csv")
        rows = []
        for name, card_gb in LADDER.items():
            if "8b" not in name or card_gb > machine.gpu_memory_gb:
                continue
            recipe = load_recipe(name, model_name=str(model))
            card = dataclasses.replace(machine, gpu_memory_gb=card_gb)

            def planned(length, name=name, card=card):
                changed = load_recipe(name, model_name=str(model), **lengths(name, length))
                return estimate(changed, card, load_config(changed.model.model_name)).fits

            def measured(length, name=name, card_gb=card_gb):
                return in_a_process("card", name, card_gb, length, model) is not None

            start = recipe.grpo["max_completion_length"]
            figures = {
                "preset": start,
                "measured": longest(measured, start),
                "planned": longest(planned, start),
            }
            rows.append({"recipe": name, "card GB": card_gb, "completions": recipe.batch_size, **figures})
        _write(pandas.DataFrame(rows), results / "gpu-cards.csv")
    dataset = os.environ.get("R1NB_GSM8K_DIR", "openai/gsm8k")
    os.environ["R1NB_SET"] = f"recipe=smollm2-135m dataset={shlex.quote(dataset)} {GSM8K}"
    run, _ = train(choose_recipe())
    evaluation = run.evaluation()["test"]
    keys = ("n", "strict", "strict_interval", "lenient", "lenient_interval", "format")
    rows = [
        {"stage": moment, **{key: evaluation[moment][key] for key in keys}} for moment in ("before", "after")
    ]
    _write(pandas.DataFrame(rows), results / "gpu-gsm8k.csv")


def _write(table, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.4g")
    print(f"{path.name}\n{table.to_string(index=False)}\n", flush=True)


def main(task: str = "", *arguments: str) -> None:
    if task == "gpu":
        started = time.perf_counter()
        bench_gpu(runs_folder("data/results"))
        print(f"{(time.perf_counter() - started) / 60:.0f} minutes")
    elif task == "model":
        print(json.dumps({"folder": str(random_llama(Path(*arguments), LLAMA_8B))}))
    elif task == "cost":
        engine, folder = arguments
        recipe = load_recipe("llama31-8b-seed", **_overrides(folder), **ENGINES[engine], max_steps=STEPS)
        print(json.dumps(measure(recipe)))
    elif task == "card":
        name, card_gb, length, folder = arguments
        print(json.dumps(emulated(name, float(card_gb), int(length), folder)))
    else:
        raise UserError(f"Unknown task {task!r}; run python -m r1nb.studies.bench gpu.")


if __name__ == "__main__":
    run_main(main)
