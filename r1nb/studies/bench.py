"""Measure time and memory of a GRPO step with SharedPromptTrainer and with TRL's own trainer.

    r1nb bench      # about five minutes

Both train the same model in turn, with one thread, and both sample the same completions: a logits processor
ends each completion at a length that is fixed beforehand. The results are ratios of CPU seconds, from the
medians of the rounds. They are printed, and in a checkout also written to data/results/bench.csv. Run nothing
else meanwhile.
"""

import csv
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from r1nb.errors import UserError
from r1nb.machine.known_models import published_config
from r1nb.paths import CHECKOUT, DATA
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import REASONING
from r1nb.training.trainer import SharedPromptTrainer

RESULTS = DATA / "results" / "bench.csv"
TRAINERS = {"TRL": GRPOTrainer, "shared": SharedPromptTrainer}
# name: (description, problems of 8 completions, share of dead groups, rounds, longest completion)
CASES = {
    "tiny": ("tiny-cpu, no dead groups", 8, 0.0, 8, 112),
    "tiny_dead": ("tiny-cpu, half of the groups dead", 8, 0.5, 8, 112),
    "qwen": ("Qwen2.5-0.5B's shape in bfloat16, short completions", 2, 0.0, 1, 32),
}


class Lengths(LogitsProcessor):
    """End each completion at its given length. The first token of a completion is its number plus 3."""

    def __init__(self, lengths, end: int):
        self.lengths, self.end, self.width = lengths, end, None

    def __call__(self, input_ids, scores):
        if self.width is None:
            self.width = input_ids.size(1)
            which = torch.arange(len(input_ids)) + 3
            return torch.full_like(scores, -torch.inf).scatter(1, which[:, None], 0.0)
        last = self.lengths[input_ids[:, self.width] - 3] == input_ids.size(1) - self.width + 1
        scores[:, self.end] = -torch.inf
        scores[last] = -torch.inf
        scores[last, self.end] = 0.0
        return scores


def build(case: str):
    """Return {name: trainer} for one model, {(name, part): []} for the CPU seconds of their steps, and the
    number of tokens that each step samples and trains on.
    """
    _, problems, dead, _, longest = CASES[case]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")
    if case == "qwen":
        shape = published_config("Qwen/Qwen2.5-0.5B-Instruct")  # the weights are random
        shape.eos_token_id, shape.pad_token_id, shape.bos_token_id = 2, 0, None
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    else:
        model = AutoModelForCausalLM.from_pretrained(DATA / "tiny-policy")
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    rows = load_rows("bundled", "train").select(range(problems))
    replies = [REASONING.format_reply(row["solution"], row["answer"]) for row in rows]
    written = torch.tensor([len(ids) for ids in tokenizer(replies).input_ids]).repeat_interleave(8)
    # A trained policy writes about as much as the given solution; vary that length by a third.
    lengths = (written * torch.empty(len(written)).uniform_(0.67, 1.33)).round().long().clamp(2, longest)
    generate = model.generate
    model.generate = lambda *args, **kwargs: generate(
        *args, logits_processor=[Lengths(lengths, tokenizer.eos_token_id)], **kwargs
    )

    def reward(completions, **columns):
        return [float(i % 2 and i // 8 >= dead * problems) for i in range(len(completions))]

    settings = {
        "per_device_train_batch_size": 8 * problems, "num_generations": 8, "max_steps": 1,
        "max_completion_length": longest, "learning_rate": 0.0, "use_cpu": True, "bf16": case == "qwen",
        "gradient_checkpointing": False, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "logging_steps": 10, "beta": 0.0,
    }  # fmt: skip
    prompts = Dataset.from_dict({"prompt": list(rows["prompt"])})
    trainers, seconds = {}, {}
    for name, cls in TRAINERS.items():
        config = GRPOConfig(tempfile.mkdtemp(), **settings)
        trainer = trainers[name] = cls(model, reward, config, prompts, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        for part in ("_generate_single_turn", "training_step"):
            spent = seconds[name, part] = []
            setattr(trainer, part, timed(getattr(trainer, part), spent))
    return trainers, seconds, int(lengths.sum())


def timed(function, spent: list[float]):
    def call(*args, **kwargs):
        begin = time.process_time()
        result = function(*args, **kwargs)
        spent.append(time.process_time() - begin)
        return result

    return call


def memory(case: str, name: str, queue) -> None:
    """Put into the queue the peak memory of a step, in MB above the memory before it (Linux)."""
    trainers, *_ = build(case)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = in_mb("VmRSS")
    trainers[name].train()
    queue.put(in_mb("VmHWM") - before)


def in_mb(key: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure(case: str) -> list:
    what, problems, _, rounds, _ = CASES[case]
    trainers, seconds, tokens = build(case)
    for number in range(rounds + 1):
        for trainer in trainers.values():
            trainer.train()
        if number == 0:  # discard the first steps, which warm up
            for spent in seconds.values():
                spent.clear()
    step, generation = (
        {name: seconds[name, part] for name in TRAINERS}
        for part in ("training_step", "_generate_single_turn")
    )
    learning = {name: [s - g for s, g in zip(step[name], generation[name], strict=True)] for name in TRAINERS}
    ratios = [
        statistics.median(part["TRL"]) / statistics.median(part["shared"])
        for part in (step, generation, learning)
    ]
    spawn, peaks = multiprocessing.get_context("spawn"), []
    for name in TRAINERS:
        queue = spawn.Queue()
        process = spawn.Process(target=memory, args=(case, name, queue))
        process.start()
        peaks.append(queue.get())
        process.join()
    seconds = [statistics.median(step[name]) for name in TRAINERS]
    pace = [tokens / statistics.median(part[name]) for part in (generation, learning) for name in TRAINERS]
    print(f"{what}, {8 * problems} completions:")
    print("  step: {:.2f}x plain TRL (generation {:.2f}x, forward and backward {:.2f}x)".format(*ratios))
    words = "  tokens a CPU second: sampled {1:.0f} (transformers' generate, adapter not merged: {0:.0f}), "
    print(words.format(*pace), "trained {1:.0f} (plain TRL: {0:.0f})".format(*pace[2:]), sep="")
    print(f"  peak memory of a step: {peaks[1]:.0f} MB, plain TRL {peaks[0]:.0f} MB", flush=True)
    figures = [*(f"{ratio:.2f}" for ratio in ratios), *(f"{second:.3f}" for second in seconds)]
    return [what, 8 * problems, *figures, *(f"{figure:.0f}" for figure in [*peaks, *pace])]


def main() -> None:
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("The peak memory is read from /proc, which only Linux has: run r1nb bench there.")
    found = [measure(case) for case in CASES]
    if not CHECKOUT:
        return
    with RESULTS.open("w", newline="") as file:
        head = ["case", "completions", "step", "generation", "forward_backward", "trl_cpu_seconds",
                "shared_cpu_seconds", "trl_peak_mb", "shared_peak_mb", "trl_sampled", "shared_sampled",
                "trl_trained", "shared_trained"]  # fmt: skip
        csv.writer(file).writerows([head, *found])
