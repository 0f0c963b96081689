"""The command r1nb: train, plan, ask, report and bench.

What a command needs is imported when it runs, so that help and completion come at once.
"""

import inspect
import os
from typing import Annotated

import typer

from r1nb import train as training
from r1nb.errors import Interrupted, UserError, did_you_mean, run_main
from r1nb.paths import runs_folder, shown, user_path
from r1nb.recipes.loading import default_runs_dir, read_overrides, recipe_names


def complete_recipe(begun: str) -> list[str]:
    return [name for name in ("auto", *recipe_names()) if name.startswith(begun)]


def complete_run(begun: str) -> list[str]:
    names = sorted(path.parent.name for path in runs_folder(default_runs_dir()).glob("[!.]*/recipe.yaml"))
    return [name for name in names if name.startswith(begun)]


def complete_card(begun: str) -> list[str]:
    from r1nb.machine.cards import CARDS

    return [name for name in CARDS if name.startswith(begun)]


Recipe = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A name, auto, or a .yaml file.", autocompletion=complete_recipe),
]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="Settings: max_steps=20 seed=2 ...")
]
RunName = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A name or a folder.", autocompletion=complete_run)
]


def train(recipe: Recipe, settings: Settings = None) -> None:
    try:
        training.train_and_show(recipe, settings or [])
    except KeyboardInterrupt:
        raise Interrupted from None  # typer would end without a word


def plan(
    recipe: Recipe,
    settings: Settings = None,
    card: Annotated[
        str | None,
        typer.Option(metavar="CARD", help="Its name, or its GB.", autocompletion=complete_card),
    ] = None,
) -> None:
    """Predict memory and time of a recipe on any card.

    It answers on every machine, before anything is downloaded: GB by part, seconds a step, hours, and the
    number of completions. If the recipe does not fit, it names the setting to change.

      r1nb plan llama31-8b-40gb --card a100-40
      r1nb plan auto --card 4090            the recipe for that card
      r1nb plan auto --card 4090 model_name=unsloth/Qwen3-1.7B      fitted to that model
      r1nb plan llama31-8b-24gb max_completion_length=1024 --card 16
      r1nb plan tiny-cpu                    on this machine

    Cards: t4, l4, a10g, 3090, 4090, a100-40, l40s, a100-80, h100, h200, or the GB of another card (for which
    no time is known).

    Next: r1nb train with the same recipe and settings, on a machine with that card.
    """
    from r1nb.machine import cards, engine, fitting, hardware, refusals
    from r1nb.machine.plan import plan_run

    machine = cards.machine_with(card) if card else hardware.this_machine()
    planned = fitting.recipe_for(recipe, machine, **read_overrides(settings or [], "The command line"))
    if card and planned.grpo.get("use_cpu"):
        if recipe != "auto":
            why = f"Recipe {planned.name} trains on the CPU, whatever the card"
            raise UserError(f"{why}: leave out --card {card}.")
        raise UserError(
            f"No recipe for --card {card}: {hardware.suggest_recipe(machine)[1]}. Name a recipe to see if it "
            "fits, or a small model: model_name=unsloth/Qwen3-0.6B."
        )
    if card:
        refusals.check_card(planned, machine)
    else:
        hardware.require(planned, machine)
        print(f"This machine: {machine}.")
        planned = engine.fall_back(planned)
    print(f"Recipe {planned.name}: {planned.about}")
    print(plan_run(planned, machine))


def ask(
    run: RunName = None,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="A text in quotes.")] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, metavar="NUMBER", help="Up to 2. 0: the likeliest token each time.")
    ] = 0.0,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Answers of each model.")] = 1,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print what the model reads.")] = False,
) -> None:
    """Ask a trained model, and its base model, a question.

    RUN is the name or folder of a run, or the folder of an adapter or of a merged model; without it, the
    newest finished run answers. Without QUESTION you can ask one question after the other.

      r1nb ask "Which is bigger, 9.10 or 9.9?"
      r1nb ask tiny-cpu-001 "How much is 90 * 12?" --temperature 1 --samples 4
      r1nb ask tiny-cpu-001                 a conversation
      r1nb ask my_models/merged "How much is 3 + 4?" --show-prompt

    Next: notebook 05 shows which tokens the adapter changed, and exports it.
    """
    from r1nb.views.asking import ask as put

    if samples > 1 and not temperature:
        raise typer.BadParameter(
            "greedy answers are all the same; set --temperature 1.", param_hint="--samples"
        )
    if 0 < temperature < 0.01:
        raise typer.BadParameter("0.01 is the least above 0.", param_hint="--temperature")
    if run and not question and " " in run and not os.path.isdir(os.path.expanduser(run)):
        run, question = None, run
    question = (question or "").strip() or None
    put(_folder(run) if run else None, question, temperature, samples, show_prompt)


def report(run: RunName = None) -> None:
    """Write the report of a run: one HTML file.

    RUN is the name or folder of a run, also of one that still trains; without it, it is the newest run.

      r1nb report
      r1nb report tiny-cpu-001

    Next: open the printed file in a browser. Notebook 04 shows more of the same run.
    """
    from r1nb.runs.run import Run
    from r1nb.views.report import write_report

    if run:
        found = Run(_folder(run))
    elif runs := Run.all(default_runs_dir()):
        found = runs[0]
    else:
        raise UserError("There is no run yet: r1nb train tiny-cpu makes one.")
    print(shown(write_report(found)))


def bench() -> None:
    """Measure a training step beside plain TRL's, on a CPU.

    It prints time and memory as ratios, after about five minutes in which nothing else should run.

      r1nb bench
      make bench                            also what scoring and callbacks cost, in a checkout

    Next: data/results/README.md explains the figures.
    """
    from r1nb.studies import bench

    bench.main()


def _folder(name: str):
    """The folder that a user named: by its path, or by its name in the folder of runs."""
    runs = runs_folder(default_runs_dir())
    for path in (user_path(name), runs / user_path(name)):
        if path.is_dir():
            return path
    known = complete_run("")
    close, some = did_you_mean(name, known), ", ".join(known[:8]) or "none"
    raise UserError(f"{name!r} is neither a folder nor a run in {shown(runs)}{close} Runs: {some}.")


def _as_written(text: str) -> str:
    r"""A help text whose lines stay as they are: \b before a paragraph keeps typer from filling it."""
    return "\b\n" + inspect.cleandoc(text).replace("\n\n", "\n\n\b\n")


app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False, help=_as_written(
        """Train your own R1-like reasoner, on one GPU or on a CPU.

          r1nb plan auto               what this machine can train
          r1nb train tiny-cpu          train the tiny policy, in about two minutes
          r1nb ask "How much is 3 + 4?"

        Each command has its own help: r1nb train --help
        """
    ),
)  # fmt: skip
for command, text in {train: training.manual(), **{c: c.__doc__ for c in (plan, ask, report, bench)}}.items():
    app.command(help=_as_written(text))(command)


def main() -> None:
    run_main(lambda *words: app(args=words, prog_name="r1nb"))
