"""Pretrain the tiny policy that ships with r1nb, on a CPU, from its own corpus.

    python data/make_policy.py [folder]     # 20 minutes on two cores

It stands in for a base model: it can calculate, but mostly answers with a bare number, and
seldom reasons or uses the XML format. tiny-policy.yaml states every share and setting.
"""

import random
import sys
import time
from pathlib import Path

import yaml
from make_problems import ITEMS, KINDS, OPERATORS, Problem, Step, draw

from r1nb.text.prompts import LAYOUTS, REASONING, format_prompt

HERE = Path(__file__).parent
PLAN = yaml.safe_load((HERE / "tiny-policy.yaml").read_text())
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def draw_sum(rng: random.Random) -> Problem:
    """A bare sum as a problem of one step; its result is between 1 and 99."""
    while True:
        op = rng.choice("+-*/")
        a, b = rng.randint(2, 19 if op == "*" else 99), rng.randint(2, 9 if op in "*/" else 90)
        if 0 < (value := OPERATORS[op](a, b)) < 100:
            spaced = rng.choice((f"{a}{op}{b}", f"{a} {op} {b}"))
            return Problem("sum", (a, b), f"What is {spaced}?", (Step("[].", f"{a}{op}{b}", value),), "")


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
    return REASONING.format_reply("\n".join(lines), answer)


def draw_corpus(seed: str, phase: dict, count: int):
    """Yield `count` pairs (problem, answer); no problem is from the test or validation split."""
    rng = random.Random(seed)
    for _ in range(count):
        is_sum = rng.random() < PLAN["corpus"]["sums"]
        problem = draw_sum(rng) if is_sum else draw(rng, rng.choice(list(KINDS)), "train")
        yield problem, write_answer(rng, problem, phase)


def phase_corpus(name: str, plan: dict = PLAN, draw_corpus=draw_corpus):
    """The whole corpus of a phase; the policy is trained on each document once."""
    phase = plan["corpus"]["phases"][name]
    count = phase["steps"] * plan["pretraining"]["batch_size"]
    return draw_corpus(f"{plan['corpus']['seed']} {name}", phase, count)


def make_tokenizer(plan: dict, draw_corpus):
    """Train a byte-level BPE tokenizer in which every digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan["model"]["vocab_size"],
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs = draw_corpus("bpe", plan["corpus"]["phases"]["learn"], 5000)
    roles = "system\nuser\nassistant\n" + LAYOUTS[plan["layout"]].system_prompt
    texts = (f"{roles}\n{problem.question}\n{answer}" for problem, answer in pairs)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|im_end|>", padding_side="left"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tokenize(tokenizer, pairs, with_system_prompt: bool, layout: str) -> list[tuple[list[int], int]]:
    """(tokens of the document, number of prompt tokens) for each pair."""
    documents = []
    for problem, answer in pairs:
        messages = LAYOUTS[layout].build_messages(problem.question)[0 if with_system_prompt else 1 :]
        prompt = tokenizer(format_prompt(tokenizer, messages)).input_ids
        documents.append((prompt + tokenizer(answer).input_ids + [tokenizer.eos_token_id], len(prompt)))
    return documents


def batches(documents: list, size: int, seed: int):
    """Yield batches of documents of similar length in random order; each document occurs once."""
    rng = random.Random(seed)
    pool = 32 * size
    for start in range(0, len(documents), pool):
        chunk = sorted(documents[start : start + pool], key=lambda document: len(document[0]))
        groups = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        yield from rng.sample(groups, len(groups))


def take_over(model, tokenizer, folder: Path) -> None:
    """Load another policy's weights into `model`; tokens that are new to them keep random embeddings."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    other, known = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder).get_vocab()
    rows = model.get_input_embeddings().weight.detach().clone()
    shared = [(row, known[token]) for token, row in tokenizer.get_vocab().items() if token in known]
    here, there = zip(*shared, strict=True)
    rows[list(here)] = other.get_input_embeddings().weight.detach()[list(there)]
    model.load_state_dict(other.state_dict() | {"model.embed_tokens.weight": rows, "lm_head.weight": rows})


def pretrain(plan: dict, draw_corpus, folder: Path) -> None:
    """Train a policy on the corpus that draw_corpus(seed, phase, count) yields; save it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

    start, settings = time.time(), plan["pretraining"]
    torch.manual_seed(settings["seed"])
    tokenizer = make_tokenizer(plan, draw_corpus)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(LlamaConfig(**plan["model"], bos_token_id=None, **ends))
    if "start" in plan:
        take_over(model, tokenizer, HERE / plan["start"])
    print(f"{model.num_parameters():,} parameters")

    # Muon for the matrices, AdamW for embedding and norms (kellerjordan.github.io/posts/muon).
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(inner, lr=settings["muon_lr"], weight_decay=settings["weight_decay"]),
        torch.optim.AdamW(outer, lr=settings["adamw_lr"], betas=(0.9, 0.98), weight_decay=0.0),
    ]
    phases = plan["corpus"]["phases"]
    total = sum(phase["steps"] for phase in phases.values())
    schedules = [
        get_cosine_schedule_with_warmup(optimizer, settings["warmup_steps"], total)
        for optimizer in optimizers
    ]
    step, losses = 0, []
    for name, phase in phases.items():
        pairs = phase_corpus(name, plan, draw_corpus)
        documents = tokenize(tokenizer, pairs, phase["system_prompt"], plan["layout"])
        for batch in batches(documents, settings["batch_size"], settings["seed"]):
            length = max(len(tokens) for tokens, _ in batch)
            ids = torch.full((len(batch), length), tokenizer.pad_token_id)
            labels = torch.full((len(batch), length), -100)
            for row, (tokens, prompt) in enumerate(batch):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, prompt : len(tokens)] = ids[row, prompt : len(tokens)]
            mask = (ids != tokenizer.pad_token_id).long()
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            step += 1
            losses.append(loss.item())
            if step % 100 == 0:
                minutes = (time.time() - start) / 60
                mean = sum(losses[-100:]) / 100
                print(f"{name}: step {step}/{total}, loss {mean:.3f}, {minutes:.1f} min", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    pretrain(PLAN, draw_corpus, Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "tiny-policy")
