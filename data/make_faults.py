"""Plant real faults in short runs of tiny-cpu, one at a time, and check that the watchdog names them.

python data/make_faults.py [folder for the runs]      # about 20 minutes on two cores

The healthy runs are the ten seeds of default.yaml: make_experiments.py trains those that do not exist yet,
and the watchdog checks the history of each, step by step. Then each fault gets a run of STEPS steps. The
table of the alarms is data/results/watchdog.csv. Thresholds and faults were fixed on seeds 1 and 11 to 13 of
the recipe tiny-five-rewards.
"""

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PrinterCallback

from r1nb.evaluation.accuracy import evaluate
from r1nb.machine.configs import grpo_config
from r1nb.paths import runs_folder
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.registry import reward
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_splits
from r1nb.training.callbacks import Recorder, Validation, Watchdog
from r1nb.training.resume import new_run
from r1nb.training.trainer import SharedPromptTrainer
from r1nb.training.watchdog import find_alarms, last_sampled

STEPS, SEED = 20, 101  # of a run with a fault
HERE = Path(__file__).parent
TABLE = HERE / "results" / "watchdog.csv"
FIVE = list(load_recipe().rewards)


@reward(high=1.0)
def generous_reward_func(text: str, answer: str) -> float:
    """Pays every completion its maximum."""
    return 1.0


@reward(high=2.0)
def long_reward_func(text: str, answer: str) -> float:
    """Pays for length alone."""
    return min(2.0, len(text) / 100)


@reward(high=4.0)
def brief_reward_func(text: str, answer: str) -> float:
    """Pays for brevity alone."""
    return max(0.0, 4.0 - len(text) / 50)


@dataclass
class Fault:
    """A fault: its description, the kinds of alarm that name it, and how it is planted."""

    about: str
    kinds: list[str]
    overrides: dict = field(default_factory=dict)
    rows: Callable = lambda rows, policy: rows
    policy: Callable = lambda policy: None
    model: Callable = lambda policy: policy.model
    trained: bool = False  # begin with a healthy run's adapter


def rewards(*names: str) -> dict:
    return {"rewards": dict.fromkeys(names, 1.0)}


def demo(*parts: str) -> dict:
    """The five rewards; those whose names start with one of `parts` are the public demo's versions."""
    return rewards(*(f"demo_{name}" if name.startswith(parts) else name for name in FIVE))


def without_end(policy) -> None:
    policy.tokenizer.eos_token = "%"  # the policy never writes it
    policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token_id


def with_foreign_template(policy) -> None:
    policy.tokenizer.chat_template = (
        "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
    )


def in_half(policy) -> None:
    policy.model.half()


def hotter(policy) -> None:
    """While it trains, the policy samples with another temperature than the trainer computes with."""
    generate = policy.model.generate

    def wrong(*args, generation_config=None, **kwargs):
        if generation_config:
            generation_config.temperature = 1.3
        return generate(*args, generation_config=generation_config, **kwargs)

    policy.model.generate = wrong


def another_model(policy):
    """Another copy of the base model: the trainer trains this copy instead of the adapter."""
    return load_policy(load_recipe()).model


def with_commas(rows, policy):
    return rows.map(lambda row: {"answer": f"{row['answer']},000"})


def one_question(rows, policy):
    return rows.select([0] * len(rows))


def solved(rows, policy):
    """The rows among the first 300 that the policy answers right and in the right format."""
    rows = rows.select(range(300))
    recipe = load_recipe()
    graded = evaluate(policy, rows, recipe.judge(), recipe.greedy, recipe.evaluation.eval_batch_size)
    return rows.select([i for i, g in enumerate(graded) if g.strict and g.format])


FAULTS = {
    "no DOTALL": Fault(
        "strict and soft format in which a dot matches no line break, as in the public demo",
        ["silent_demo_strict_format_reward_func"],
        demo("strict", "soft"),
    ),
    "commas": Fault(
        "golds left with commas, and compared character by character, as in the public demo",
        ["silent_demo_correctness_reward_func"],
        demo("correctness"),
        rows=with_commas,
    ),
    "no end token": Fault("generation is not told the end token", ["no_end"], policy=without_end),
    "wrong template": Fault(
        "another model's chat template", ["nothing_earned"], policy=with_foreign_template
    ),
    "short limit": Fault("max_completion_length = 2", ["cut_off"], {"max_completion_length": 2}),
    "no adapter": Fault("the trained model is not the adapter's", ["still"], model=another_model),
    "lr x 100": Fault("learning_rate = 0.2", ["exploded"], {"learning_rate": 0.2}),
    "always pays": Fault(
        "a reward that pays whatever it is given",
        ["always_generous_reward_func"],
        rewards(*FIVE, "generous_reward_func"),
    ),
    "duplicates": Fault("every row is the same", ["repeated"], rows=one_question),
    "too easy": Fault(
        "a trained policy goes on with problems it solves, at temperature 0.3",
        ["too_easy"],
        {"temperature": 0.3},
        rows=solved,
        trained=True,
    ),
    "too hard": Fault(
        "correctness alone, on golds that no completion reaches",
        ["nothing_earned"],
        rewards("correctness_reward_func"),
        rows=with_commas,
    ),
    "fp16": Fault("weights and optimizer in fp16", ["not_finite"], policy=in_half),
    "temperature": Fault("the sampler has temperature 1.3, the trainer 1", ["unlike_sampler"], policy=hotter),
    "KL": Fault(
        "learning_rate x 20, with a KL term of next to no weight",
        ["far_from_base", "exploded"],
        {"beta": 1e-4, "learning_rate": 0.04},
    ),
    "hacking": Fault(
        "a trained policy is paid for format and brevity, not for right answers",
        ["hacked"],
        rewards("strict_format_reward_func", "brief_reward_func")
        | {"learning_rate": 2e-3, "lr_scheduler_type": "constant_with_warmup"},
        trained=True,
    ),
    "length": Fault(
        "length is paid for, and the limit is 32 tokens",
        ["too_long"],
        rewards("long_reward_func") | {"learning_rate": 4e-3, "max_completion_length": 32},
    ),
}


def heard(run: Run) -> list[dict]:
    """The alarms that the watchdog would raise if it checked a run's history after each step."""
    recipe, history, said = load_recipe(run), run.history(), {}
    judge, args = recipe.judge(), grpo_config(recipe, run.folder)
    for step in run.series("reward")[0]:
        lines = [line for line in history if line["step"] <= step]
        log = run.completions(*last_sampled(lines, args))
        for alarm in find_alarms(lines, judge, args, log):
            line = {"step": alarm.step, "alarm": alarm.kind, "sentence": alarm.sentence}
            said.setdefault(alarm.kind, line)
    return list(said.values())


def train(recipe, fault: Fault, adapter: Path) -> Run:
    """Train as notebook 03 does, but without the evaluations before and after."""
    policy = load_policy(recipe)
    rows, validation, _ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    if fault.trained:
        policy.load_adapter(adapter)
        for name, weights in policy.model.named_parameters():
            weights.requires_grad_("lora_" in name)
    else:
        attach_lora(policy, recipe)
    rows = fault.rows(rows, policy)
    fault.policy(policy)
    run = new_run(recipe)
    trainer = SharedPromptTrainer(
        model=fault.model(policy),
        processing_class=policy.tokenizer,
        reward_funcs=recipe.reward_funcs(policy.end_tokens),
        args=grpo_config(recipe, run.folder),
        train_dataset=rows,
        callbacks=[Recorder(run), Validation(run, policy, validation, recipe), Watchdog(run, recipe.judge())],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return run


def main(runs_dir: str) -> None:
    subprocess.run([sys.executable, HERE / "make_experiments.py", "default", runs_dir], check=True)
    lines = []
    for run in reversed(Run.all(runs_folder(runs_dir) / "default")):
        said, (steps, _) = heard(run), run.progress()
        about = f"seed {run.recipe['grpo']['seed']}, {steps} steps"
        lines.append(["none", about, "nothing", *told(said, not said)])
        write(lines)
    adapter = run.folder / f"checkpoint-{steps}"
    for name, fault in FAULTS.items():
        settings = {"max_steps": STEPS, "seed": SEED, "eval_every": 5, "runs_dir": runs_dir}
        said = train(load_recipe(**settings, **fault.overrides), fault, adapter).alarms()
        named = any(line["alarm"] in fault.kinds for line in said)
        lines.append([name, fault.about, " or ".join(fault.kinds), *told(said, named)])
        write(lines)


def told(said: list[dict], right: bool) -> list[str]:
    kinds = ", ".join(f"{line['alarm']} ({line['step']})" for line in said)
    return ["yes" if right else "NO", kinds, said[0]["sentence"] if said else ""]


def write(lines: list[list[str]]) -> None:
    heads = ["fault", "planted", "expected", "as expected", "said (at step)", "first sentence"]
    with TABLE.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *lines])


if __name__ == "__main__":
    main(*sys.argv[1:] or ["runs/faults"])
