"""What a GPU run costs, beside plain TRL and beside the plan: `python -m r1nb.studies.bench gpu`.

It trains 10 steps of Llama-3.1-8B's shape with the article's settings, by Unsloth with and without vLLM and
by plain TRL, and writes gpu-cost.csv. Each is a process of its own, so that none inherits another's memory.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.machine.hardware import GB, this_machine
from r1nb.machine.out_of_memory import out_of_memory_in_words, remedy_for
from r1nb.machine.plan import estimate, load_empty
from r1nb.paths import DATA, runs_folder
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_split

ENGINES = {
    "unsloth and vllm": {},
    "unsloth": {"fast_inference": False, "use_vllm": False},
    "trl": {"engine": "transformers", "fast_inference": False, "use_vllm": False},
}
LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip


def random_llama(folder: Path, shape: dict) -> None:
    """Save a Llama of a shape with random weights, with the tiny policy's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")
    config = LlamaConfig(**shape, eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(recipe) -> dict[str, float]:
    """Train a recipe: seconds a step and tokens a second without the first step, which compiles, and the
    memory that the plan predicts, with the KV pool that vLLM is told to take.
    """
    planned = estimate(recipe, this_machine(), load_empty(recipe))  # imports Unsloth, which must come first
    from r1nb.training.callbacks import Recorder
    from r1nb.training.resume import new_run
    from r1nb.training.stages import grpo_trainer

    with out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        policy = load_policy(recipe, say=lambda line: None)
        rows = load_split(recipe.data, recipe.data.train_split)
        attach_lora(policy, recipe)
        run = new_run(recipe)
        grpo_trainer(policy, rows, recipe, run.folder, [Recorder(run)]).train()
    seconds, tokens = run.series("step_time")[1][1:], run.series("num_tokens")[1]
    return {
        "seconds a step": sum(seconds) / len(seconds),
        "tokens a second": (tokens[-1] - tokens[0]) / sum(seconds),
        "planned GB": planned.peak_gb,
    }


def used_gb() -> float:
    """The memory of the card that is in use."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / GB


def run_watched(command: list[str]) -> tuple[int, str, float]:
    """Run a command: (its exit code, the last line it prints, or of its errors, the most GB it holds)."""
    before, most = used_gb(), 0.0
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=said, stderr=errors)
        while process.poll() is None:
            most = max(most, used_gb() - before)
            time.sleep(0.02)
        file = errors if process.returncode else said
        file.seek(0)
        return process.returncode, file.read().strip().rpartition("\n")[2], most


def bench_gpu(results: Path) -> None:
    """Measure each engine and write gpu-cost.csv; an engine that fails has an empty line."""
    import pandas

    if not this_machine().gpu:
        raise UserError(
            "`r1nb.studies.bench gpu` measures a CUDA GPU, and this machine has none; see `make bench`."
        )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        random_llama(Path(folder, "llama"), LLAMA_8B)
        for engine in ENGINES:
            command = [sys.executable, "-m", "r1nb.studies.bench", engine, f"{folder}/llama"]
            code, last, peak = run_watched(command)
            if code:
                print(f"{engine} failed: {last}")
            rows.append({"engine": engine} | ({} if code else json.loads(last) | {"peak GB": peak}))
    table = pandas.DataFrame(rows)
    results.mkdir(parents=True, exist_ok=True)
    table.to_csv(results / "gpu-cost.csv", index=False, float_format="%.4g")
    print(table.to_string(index=False))


def main(engine: str = "", model: str = "") -> None:
    if engine == "gpu":
        bench_gpu(runs_folder("data/results"))
        return
    if engine not in ENGINES:
        raise UserError(f"Unknown engine {engine!r}; run python -m r1nb.studies.bench gpu.")
    recipe = load_recipe(
        "llama31-8b-seed", model_name=model, dataset="bundled", runs_dir=f"{model}-runs", max_steps=10,
        save_strategy="no", **ENGINES[engine],
    )  # fmt: skip
    print(json.dumps(measure(recipe)))


if __name__ == "__main__":
    run_main(main)
