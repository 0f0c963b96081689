"""Measure the cost of observing (scoring, callbacks, a long run opened) and the time of each button.

    python tests/bench.py      # or make bench; about two minutes

The costs are ratios within one run, because machines differ. Run nothing else meanwhile.
"""

import tempfile
import threading
import time
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from written_run import write_run

from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import make_judge
from r1nb.rewards.registry import reward_names
from r1nb.tasks.rows import load_splits
from r1nb.text.prompts import REASONING
from r1nb.training.callbacks import Recorder, Validation, Watchdog
from r1nb.training.resume import new_run
from r1nb.training.stages import grpo_trainer
from r1nb.widgets.ask import Ask
from r1nb.widgets.inspector import Inspector
from r1nb.widgets.live import LiveView
from r1nb.widgets.one_step import OneStep

STEPS = 112  # a whole run of tiny-cpu
LONG = 2000  # steps of a run to be opened, of 8 completions each
COLUMNS = {"nums": [4, 7, 8, 8], "target": 24}


def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("tiny-cpu", max_steps=STEPS, runs_dir=folder)
        policy = load_policy(recipe)
        train, validation, _ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
        attach_lora(policy, recipe)
        run = new_run(recipe)
        observers = [Recorder(run), Validation(run, policy, validation, recipe), LiveView(run)]
        observers.append(Watchdog(run, recipe.judge()))
        trainer = grpo_trainer(policy, train, recipe, run.folder, observers)
        with following(run) as panel:
            seconds = trainer.train().metrics["train_runtime"]
    table = Table("callback", f"share of {STEPS} steps of {recipe.batch_size} completions")
    for callback in [*observers, trainer.canary]:
        table.add_row(type(callback).__name__, f"{callback.seconds / seconds:.2%}")
    table.add_row("the live panel of a notebook, in its own thread", f"{sum(panel) / seconds:.2%}")
    console.print(table)
    console.print(scoring(recipe, policy, train, seconds))
    console.print(opening())
    console.print(pressing(recipe, policy, train[0]))


@contextmanager
def following(run):
    """Let an inspector follow the run in a thread, as in a notebook; yields the CPU seconds of its ticks."""
    inspector, spent, ended = Inspector(run=run), [], threading.Event()

    def tick() -> None:
        while not ended.wait(2):
            begin = time.thread_time()
            inspector.clock.value += 1
            spent.append(time.thread_time() - begin)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield spent
    finally:
        ended.set()
        thread.join()


def scoring(recipe, policy, train, seconds: float) -> Table:
    """Return the time of each reward for the completions of these steps, written like solved problems."""
    count = STEPS * recipe.batch_size
    rows = train.select([i % len(train) for i in range(count)])
    completions = [REASONING.format_reply(row["solution"], row["answer"]) for row in rows]
    golds = list(rows["answer"])
    columns = {name: [value] * count for name, value in COLUMNS.items()}
    columns["completion_ids"] = policy.tokenizer(completions).input_ids
    shares = {}
    for name in reward_names():
        if name in ("judge_reward_func", "gym_reward_func"):  # depends on the endpoint or task
            continue
        func = make_judge({name: 1.0}, max_completion_length=112, overlong_cache=22).rewards[name]
        for _ in range(2):  # the first call also starts a subprocess or loads a library
            start = time.perf_counter()
            func(completions, answer=golds, **columns)
            shares[name] = (time.perf_counter() - start) / seconds
    table = Table("reward", f"scoring {count} completions, as a share of the same steps")
    for name, share in shares.items():
        table.add_row(name, f"{share:.3%}")
    table.add_row(f"all of {recipe.name}", f"{sum(shares[name] for name in recipe.rewards):.3%}")
    return table


def opening() -> Table:
    """Return the seconds to open a long run with the inspector, and to move the slider."""
    table = Table("inspector", "seconds")
    with tempfile.TemporaryDirectory() as folder:
        write_run(load_recipe("tiny-cpu", max_steps=LONG, runs_dir=folder), LONG)
        start = time.perf_counter()
        inspector = Inspector(folder)
        opened = time.perf_counter()
        inspector.step.value = LONG // 2
        table.add_row(f"open a run of {LONG} steps, {8 * LONG} completions", f"{opened - start:.2f}")
        table.add_row("move the slider", f"{time.perf_counter() - opened:.2f}")
    return table


def pressing(recipe, policy, row: dict) -> Table:
    """Return the seconds from the press of a button to its result."""
    ask, one = Ask(policy, recipe.layout, recipe.greedy, row["question"]), OneStep(policy, recipe, row)
    presses = {
        "Ask: one greedy answer of the base and one of the adapter": ask.ask,
        f"Sample a group of {recipe.group_size}": one.sampler.sample,
        "Take one GRPO step on it": one.step,
    }
    table = Table("button", "seconds")
    for name, press in presses.items():
        start = time.perf_counter()
        press.press()
        assert not press.said.value, press.said.value
        table.add_row(name, f"{time.perf_counter() - start:.2f}")
    return table


if __name__ == "__main__":
    main()
