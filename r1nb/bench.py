"""What scoring costs, as a share of a training step: `make bench`.

    python -m r1nb.bench

Ratios within one run, since machines differ; run nothing else meanwhile.
"""

import tempfile
import time

from rich.console import Console
from rich.table import Table

from r1nb.data import load_splits, solution_as_xml
from r1nb.models import attach_lora, load_policy
from r1nb.recipe import load_recipe
from r1nb.rewards import REWARDS

STEPS = 8
COLUMNS = {"nums": [4, 7, 8, 8], "target": 24}


def main() -> None:
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    console = Console()
    recipe = load_recipe("tiny-cpu", max_steps=STEPS)
    policy = load_policy(recipe, say=console.print)
    train, *_ = load_splits(recipe)
    attach_lora(policy, recipe)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy.model,
            processing_class=policy.tokenizer,
            reward_funcs=recipe.reward_funcs(),
            args=recipe.grpo_config(folder),
            train_dataset=train,
        )
        trainer.remove_callback(PrinterCallback)
        seconds = trainer.train().metrics["train_runtime"]
    count = STEPS * recipe.batch_size
    rows = train.select(range(count))
    completions = [solution_as_xml(row) for row in rows]  # as long as they get, with steps to read
    golds = list(rows["answer"])
    columns = {name: [value] * count for name, value in COLUMNS.items()}
    columns["completion_ids"] = policy.tokenizer(completions).input_ids
    shares = {}
    for name in REWARDS:
        if name in ("judge_reward_func", "gym_reward_func"):  # as long as an endpoint, or a task, takes
            continue
        func = recipe.scorer(name)
        for _ in range(2):  # the first time starts what the reward needs
            start = time.perf_counter()
            func(completions, answer=golds, **columns)
            shares[name] = (time.perf_counter() - start) / seconds
    table = Table(
        "reward", f"scoring {count} completions, as a share of {STEPS} steps of {recipe.batch_size}"
    )
    for name, share in shares.items():
        table.add_row(name, f"{share:.3%}")
    table.add_row(f"all of {recipe.name}", f"{sum(shares[name] for name in recipe.rewards):.3%}")
    console.print(table)


if __name__ == "__main__":
    main()
