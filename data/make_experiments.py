"""Run the experiments of a plan like controls.yaml, in several arms and seeds; write data/results.

    python data/make_experiments.py controls RUNS_DIR               # all runs, two at a time; then the CSVs
    python data/make_experiments.py controls RUNS_DIR ARM SEED      # one run

A run takes three to ten minutes on an idle core and is written to RUNS_DIR/PLAN. Finished runs are not
repeated: if you change the settings of the plan, name another folder.
"""

import argparse
import csv
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from transformers import TrainerCallback
from trl import GRPOTrainer

from r1nb.evaluation.accuracy import evaluate_tests, sample_groups
from r1nb.evaluation.difficulty import keep_by_difficulty
from r1nb.evaluation.reflection import read_reflection, rescue_rates
from r1nb.paths import runs_folder
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards import reward
from r1nb.rewards.grading import summarize_samples
from r1nb.runs.evaluations import MOMENTS
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_splits
from r1nb.text.prompts import LAYOUTS
from r1nb.training.callbacks import Recorder, Validation
from r1nb.training.rejection import examples_of
from r1nb.training.resume import new_run
from r1nb.training.stages import grpo_trainer, sft
from r1nb.training.trainer import decode, generating_by

HERE = Path(__file__).parent
PLANS = [
    "controls", "variants", "variants-again", "countdown", "default-choice", "default-choice-2", "default",
    "speedrun-choice", "speedrun",
]  # fmt: skip


@reward(high=1.0)
def random_reward_func(text: str, answer: str):
    """1.0 or 0.0 at random, whatever the completion says."""
    return float(random.random() < 0.5)


class Clock(TrainerCallback):
    """Record in the history the completions sampled so far and the CPU seconds of the training steps alone.

    CPU seconds are meaningful on a busy machine, too. `completions` and `seconds` were spent before training.
    """

    def __init__(self, run: Run, completions: int = 0, seconds: float = 0.0):
        self.run, self.begun, self.completions, self.seconds = run, 0.0, completions, seconds

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds += time.process_time() - self.begun
        sampled = self.completions
        if not sampled:
            uses = args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps
            sampled = -(-state.global_step // uses) * args.generation_batch_size
        line = {"step": state.global_step, "cpu_seconds": self.seconds, "completions": sampled}
        self.run.append(line)


def read_plan(name: str) -> dict:
    return yaml.safe_load((HERE / f"{name}.yaml").read_text())


def own_correct_samples(policy, rows, recipe, prefill: str, completions: int):
    """A dataset of {prompt, completion}: the right ones among `completions` samples of the policy."""
    from datasets import Dataset

    some = rows.shuffle(seed=recipe.grpo["seed"]).select(range(completions // recipe.group_size))
    judge, batch_size = recipe.judge(rows.column_names), recipe.evaluation.eval_batch_size
    with generating_by(policy.model, decode):
        groups = sample_groups(
            policy, some, judge, recipe.sampling, batch_size, recipe.group_size, prefill=prefill
        )
    right = [[g for g in group if g.strict] for group in groups]
    kept = [list({g.completion: g for g in group}.values()) for group in right]
    print(f"{sum(map(len, right))} right, {sum(map(len, kept))} different")
    return Dataset.from_list(examples_of(some, kept))


def run_arm(plan: dict, runs_dir: Path, arm: str, seed: int) -> None:
    settings = dict(plan["arms"][arm])
    sampling, plain = settings.pop("sft", None), settings.pop("plain", False)
    recipe = load_recipe(plan["recipe"], runs_dir=str(runs_dir), seed=seed, **plan["common"], **settings)
    recipe = recipe.model_copy(update={"name": arm})
    if sampling is not None:
        steps = {"max_steps": sampling["steps"]} if "steps" in sampling else {}
        recipe.sft.update(plan["sft"], seed=seed, **steps)
    policy = load_policy(recipe)
    rows, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    rows = keep_by_difficulty(policy, rows, recipe)
    run = new_run(recipe)
    if arm == "shipped":
        for moment in ("before", "prefilled"):
            evaluate_tests(run, moment, policy, tests, recipe)
    watch = Validation(run, policy, validation, recipe)
    if sampling is not None:
        prefill = recipe.layout.prefill if sampling.get("prefill") else ""
        completions = sampling.get("completions", recipe.grpo["max_steps"] * recipe.batch_size)
        begun = time.process_time()
        examples = own_correct_samples(policy, rows, recipe, prefill, completions)
        clock = Clock(run, completions, time.process_time() - begun)
        attach_lora(policy, recipe)
        sft(policy, examples, recipe, run.folder, [Recorder(run), clock, watch])
    else:
        attach_lora(policy, recipe)
        callbacks = [Recorder(run), Clock(run), watch]
        trainer_class = GRPOTrainer if plain else None
        grpo_trainer(policy, rows, recipe, run.folder, callbacks, trainer_class).train()
    evaluate_tests(run, "after", policy, tests, recipe)


def sorted_out(plan: dict, folder: Path) -> tuple[dict[tuple[str, int], Run], list[tuple[str, int]]]:
    """({(arm, seed): run} of a plan's runs with an evaluation at the end, [(arm, seed)] of missing runs)."""
    runs = reversed(Run.all(folder))
    done = {(run.name[:-4], run.recipe["grpo"]["seed"]): run for run in runs if run.graded("after")}
    planned = [(arm, seed) for seed in plan["seeds"] for arm in plan["arms"]]
    return {key: done[key] for key in planned if key in done}, [key for key in planned if key not in done]


def write_results(name: str, plan: dict, runs: dict[tuple[str, int], Run], folder: Path) -> None:
    """Write NAME.csv, the rates of each run and moment, and NAME-curves.csv, the validations of each run."""
    rates = ("strict", "lenient", "format")
    columns = [name for rate in rates for name in (rate, f"{rate}_low", f"{rate}_high")]
    rows, curves = [], []
    order = list(plan["arms"])
    for arm, seed in sorted(runs, key=lambda key: (order.index(key[0]), key[1])):
        run = runs[arm, seed]
        for split, moments in run.evaluation().items():
            for moment, summary in moments.items():
                cells = [c for rate in rates for c in (summary[rate], *summary[f"{rate}_interval"])]
                passed = {}
                if split in (groups := run.samples(moment)):
                    passed = summarize_samples(groups[split])["pass"]
                cells = [f"{cell:.4f}" for cell in cells] + [f"{summary['tokens']:.1f}"]
                cells += [f"{passed[k][0]:.4f}" if k in passed else "" for k in "1248"]
                rows.append([arm, seed, moment, split, summary["n"], *cells])
        spent = {line["step"]: line for line in run.history() if "cpu_seconds" in line}
        for line in run.history():
            if "validation/strict" in line:
                clock = spent.get(line["step"], {"completions": 0, "cpu_seconds": 0.0})
                cells = [f"{line[f'validation/{rate}']:.4f}" for rate in rates]
                cells.append(f"{clock['cpu_seconds']:.1f}")
                curves.append([arm, seed, line["step"], clock["completions"], *cells])
    columns = ["stage", "split", "n", *columns, "tokens", *(f"pass@{k}" for k in "1248")]
    _write(folder / f"{name}.csv", ["arm", "seed", *columns], rows)
    heads = ["arm", "seed", "step", "completions", *rates, "cpu_seconds"]
    _write(folder / f"{name}-curves.csv", heads, curves)


def write_reflection(name: str, runs: dict[tuple[str, int], Run], folder: Path) -> None:
    """Write NAME-reflection.csv: how many Countdown samples go back, and how many of them are right."""
    rows = []
    for (arm, seed), run in runs.items():
        layout = LAYOUTS[run.recipe["data"]["layout"]]
        for moment in MOMENTS:
            for split, groups in run.samples(moment).items():
                read = [read_reflection(g.completion, g.question, layout) for group in groups for g in group]
                failed_first, *rates = rescue_rates(groups, layout)
                rates = [f"{rate:.4f}" for rate in (sum(r.backtracks for r in read) / len(read), *rates)]
                rows.append([arm, seed, moment, split, len(read), rates[0], failed_first, *rates[1:]])
    head = ["arm", "seed", "stage", "split", "n", "goes_back", "failed_first", "rescued", "guessed"]
    _write(folder / f"{name}-reflection.csv", head, rows)


def _write(path: Path, head: list[str], rows: list[list]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", choices=PLANS)
    parser.add_argument("runs_dir")
    parser.add_argument("arm", nargs="?")
    parser.add_argument("seed", nargs="?", type=int)
    given = parser.parse_args()
    plan, folder = read_plan(given.plan), runs_folder(given.runs_dir) / given.plan
    if given.arm:
        if given.arm not in plan["arms"] or given.seed is None:
            parser.error(f"arm must be one of {', '.join(plan['arms'])}, followed by a seed")
        run_arm(plan, folder, given.arm, given.seed)
        return
    folder.mkdir(parents=True, exist_ok=True)

    def one(job) -> None:
        log = folder / f"{job[0]}-{job[1]}.log"
        command = [sys.executable, __file__, given.plan, given.runs_dir, job[0], str(job[1])]
        with log.open("w") as file:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        print(*job, "done" if not code else f"failed, see {log}", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, sorted_out(plan, folder)[1]))
    runs, lacking = sorted_out(plan, folder)
    if lacking:
        sys.exit(f"data/results was not written, because {len(lacking)} runs are missing: {lacking}")
    write_results(given.plan, plan, runs, HERE / "results")
    if given.plan == "countdown":
        write_reflection(given.plan, runs, HERE / "results")


if __name__ == "__main__":
    main()
