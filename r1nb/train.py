"""Train a LoRA adapter with GRPO, as notebook 03 does.

It measures accuracy, trains, measures accuracy again, saves the adapter, loads it in a fresh process as
proof, and writes a report. Each run has its own run folder.

RECIPE is a name from the list below, auto (the recipe that suits this machine), or your own .yaml file. A
setting key=value replaces the value of that key in the recipe:

  r1nb train tiny-cpu                       about two minutes on two cores
  r1nb train tiny-cpu max_steps=20 seed=2 name="first try"
  r1nb train tiny-cpu rewards='{correctness_reward_func: 1.0}' loss_type=dr_grpo
  r1nb train auto model_name=unsloth/Qwen3-1.7B     a recipe fitted to this model and machine
  r1nb train auto dataset=my_folder test_splits=test runs_dir=/data/runs

The same command resumes a run that was interrupted; resume=false begins a new run instead. A name names the
run folder, as in runs/first-try-001, and another name is another run. python -m r1nb.train does the same.

Next: r1nb ask puts questions to the adapter. Notebook 04 shows a run while it trains and afterwards.

exit codes: 0 trained, and the saved adapter is faithful: it is what was trained, 1 an error (one sentence
explains it), 2 a wrong command line, 3 trained, but the saved adapter is not faithful, has no effect or could
not be checked, 130 interrupted
"""

import argparse
import io
import os
import sys

import yaml

from r1nb.errors import run_main
from r1nb.paths import RECIPES
from r1nb.processes import from_main, is_main, leave
from r1nb.recipes.loading import read_overrides


def train(recipe):
    """Train a recipe, from its rows to the report of the run; returns (Run, proof.Proof).

    Notebook 03 shows the same steps one by one. An unfinished run is resumed. With several processes only the
    main process writes and proves the run; the others return (Run, None). Raises UserError.
    """
    from r1nb.evaluation import accuracy, checks, difficulty
    from r1nb.policy.loading import attach_lora, load_policy
    from r1nb.runs.checkpoints import last_checkpoint
    from r1nb.tasks.rows import drop_long_prompts, load_splits
    from r1nb.training import callbacks, resume, stages
    from r1nb.views import report, serving
    from r1nb.widgets import live

    rows, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    for problem in checks.check_rewards(rows, recipe.judge(rows.column_names)):
        print(problem)
    policy = load_policy(recipe)
    limit = recipe.data.max_prompt_length
    rows = drop_long_prompts(rows, policy.tokenizer, limit, recipe.problems_per_generation)
    kept = difficulty.keep_by_difficulty(policy, rows, recipe)
    rows = from_main(lambda: kept)  # sampling may differ between processes
    run = from_main(lambda: resume.begin_run(recipe, rows))
    print("Run folder:", run.label)
    before = accuracy.evaluate_tests(run, "before", policy, tests, recipe)
    accuracy.evaluate_tests(run, "prefilled", policy, tests, recipe)
    for problem in checks.check_groups(policy, rows, recipe):
        print(problem)
    attach_lora(policy, recipe)
    if recipe.sft and not any(last_checkpoint(run)):
        print(f"SFT: {recipe.sft['max_steps']} steps")
        examples = stages.solution_examples(rows, recipe.layout)
        print(f"SFT: mean loss {stages.sft(policy, examples, recipe, run.folder / 'sft'):.2f}")
    observers = [callbacks.Recorder(run), callbacks.Validation(run, policy, validation, recipe)]
    observers += [live.LiveView(run), callbacks.Watchdog(run, recipe.judge())]
    trainer = stages.grpo_trainer(policy, rows, recipe, run.folder, observers)
    print(f"GRPO: {recipe.grpo['max_steps']} steps")
    with resume.resumable(trainer, run) as checkpoint:
        trainer.train(resume_from_checkpoint=checkpoint)
    if proof := stages.finish(run, policy, tests, recipe, before):
        report.write_report(run)
        serving.write_serving_lines(run)
    return run, proof


def manual() -> str:
    """The text at the top of this file, with a list of the recipes."""
    recipes = [
        f"  {path.stem:<22}{yaml.safe_load(path.read_text(encoding='utf-8'))['about']}"
        for path in sorted(RECIPES.glob("*.yaml"))
    ]
    return "\n".join([__doc__, "recipes:", *recipes])


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m r1nb.train",
        description=manual(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a name above, auto, or a .yaml file")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="max_steps=20, seed=2, ...")
    given = parser.parse_args(arguments)
    train_and_show(given.recipe, given.settings)


def train_and_show(name: str, settings: list[str]) -> None:
    """Train the recipe of this name with settings like "seed=2", and print the result.

    Ends with exit code 3 if the saved adapter is not what was trained. Raises UserError.
    """
    overrides = read_overrides(settings, "The command line")
    if not sys.stderr.isatty():  # no progress bars in a log file
        os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                       "TQDM_DISABLE": "1"}  # fmt: skip
    from r1nb.machine import fitting, plan
    from r1nb.views.console import show_result

    if is_main():
        sys.stdout.reconfigure(line_buffering=True, errors="replace")  # at once in log files, too
    else:
        sys.stdout = io.StringIO()  # only the main process prints
    recipe = fitting.choose_recipe(name, **overrides)
    print(plan.plan_run(recipe))
    run, proof = train(recipe)
    leave()
    show_result(run)
    print(proof)
    if not proof.holds:
        sys.exit(3)


if __name__ == "__main__":
    run_main(main)
