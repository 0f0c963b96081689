"""Pretrain the tiny policy that ships with r1nb, on a CPU, from its own corpus.

    python data/make_policy.py [folder]     # about an hour on two cores; data/tiny-policy

A stand-in for a base model: it can calculate, mostly answers with a bare number, and only
seldom reasons or uses the XML format. tiny-policy.yaml states every share and setting.
"""

import json
import random
import sys
import time
from pathlib import Path

import yaml
from make_problems import ITEMS, KINDS, OPERATORS, Problem, Step, draw

from r1nb.prompts import build_messages

HERE = Path(__file__).parent
PLAN = yaml.safe_load((HERE / "tiny-policy.yaml").read_text())
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def draw_sum(rng: random.Random) -> Problem:
    """A bare sum as a problem of one step, its result between 1 and 99."""
    while True:
        op = rng.choice("+-*/")
        a, b = rng.randint(2, 19 if op == "*" else 99), rng.randint(2, 9 if op in "*/" else 90)
        if 0 < (value := OPERATORS[op](a, b)) < 100:
            spaced = rng.choice((f"{a}{op}{b}", f"{a} {op} {b}"))
            return Problem("sum", (a, b), f"What is {spaced}?", (Step("[].", f"{a}{op}{b}", value),), "")


def draw_drill(rng: random.Random) -> tuple[Problem, str]:
    """Eight sums at once, which is how the policy learns its tables."""
    steps = [draw_sum(rng).steps[0] for _ in range(8)]
    question = f"What are {', '.join(step.sum for step in steps)}?"
    answer = "\n".join(f"{step.sum}={step.value}" for step in steps)
    return Problem("drill", (), question, tuple(steps), ""), answer


def write_step(rng: random.Random, step: Step) -> str:
    """A step without calculator marks, sometimes checked, sometimes wrong at first and corrected."""
    luck, value, check = rng.random(), step.value, ""
    if luck < PLAN["corpus"]["correction"]:
        value = max(0, step.value + rng.choice((-10, -2, -1, 1, 2, 10)))
        check = f" Check: {step.sum}={step.value}, not {value}."
    elif luck < PLAN["corpus"]["correction"] + PLAN["corpus"]["check"]:
        check = f" Check: {step.sum}={step.value}, right."
    return step.text.replace("[]", f"{step.sum}={value}") + check


def write_answer(rng: random.Random, problem: Problem, phase: dict) -> str:
    corpus = PLAN["corpus"]
    way = rng.choices(list(phase["ways"]), list(phase["ways"].values()))[0]
    if way == "bare":
        return str(problem.value)
    steps = problem.steps[-1:] if rng.random() < phase["brief"] else problem.steps
    lines = [write_step(rng, step) for step in steps]
    if way == "steps":
        return "\n".join(lines) + f"\n#### {problem.value}"
    answer = str(problem.value)
    if rng.random() < corpus["unit"]:
        answer += " " + (problem.unit or rng.choice(ITEMS))
    if rng.random() < corpus["one_line"]:
        return f"<reasoning> {' '.join(lines)} </reasoning> <answer> {answer} </answer>"
    reasoning = "\n".join(lines)
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"


def draw_corpus(seed: str, phase: dict, count: int):
    """Yield `count` pairs (problem, answer); no problem of the test or of validation."""
    rng = random.Random(seed)
    for _ in range(count):
        luck = rng.random()
        if luck < phase["drills"]:
            yield draw_drill(rng)
            continue
        is_sum = luck < phase["drills"] + PLAN["corpus"]["sums"]
        problem = draw_sum(rng) if is_sum else draw(rng, rng.choice(list(KINDS)), "train")
        yield problem, write_answer(rng, problem, phase)


def phase_corpus(name: str):
    """The whole corpus of a phase: each document is read once."""
    phase = PLAN["corpus"]["phases"][name]
    count = phase["steps"] * PLAN["pretraining"]["per_device_train_batch_size"]
    return draw_corpus(f"{PLAN['corpus']['seed']} {name}", phase, count)


def as_row(problem: Problem, answer: str) -> dict:
    """A document as TRL's SFTTrainer takes it."""
    reply = {"role": "assistant", "content": answer}
    return {"prompt": build_messages(problem.question), "completion": [reply]}


def make_tokenizer():
    """Byte-level BPE in which every digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PLAN["model"]["vocab_size"],
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    phase = PLAN["corpus"]["phases"]["learn"]
    rows = (as_row(*pair) for pair in draw_corpus("bpe", phase, 5000))
    texts = (m["role"] + "\n" + m["content"] for d in rows for m in d["prompt"] + d["completion"])
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|im_end|>", padding_side="left"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def main(folder: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    start = time.time()
    torch.manual_seed(PLAN["pretraining"]["seed"])
    tokenizer = make_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(LlamaConfig(**PLAN["model"], bos_token_id=None, **ends))
    print(f"{model.num_parameters():,} parameters")
    losses = []
    for name, phase in PLAN["corpus"]["phases"].items():
        args = SFTConfig(
            **PLAN["pretraining"],
            output_dir=str(folder / "checkpoints"),
            max_steps=phase["steps"],
            learning_rate=phase["learning_rate"],
            train_sampling_strategy="group_by_length",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            logging_steps=100,
        )
        data = Dataset.from_list([as_row(*pair) for pair in phase_corpus(name)])
        trainer = SFTTrainer(model, args, train_dataset=data, processing_class=tokenizer)
        trainer.train()
        losses.append(trainer.state.log_history[-2]["loss"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    made = {"minutes": round((time.time() - start) / 60), "final_losses": losses}
    (folder / "made.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "tiny-policy")
