"""The command r1nb: its help, its exit codes, and what each command prints."""

import io
import os
import re
import subprocess
import sys

import pytest
from written_run import write_run

from r1nb import cli, train
from r1nb.evaluation.proof import Proof
from r1nb.machine import engine, hardware
from r1nb.machine.cards import CARDS
from r1nb.machine.hardware import Machine
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe, recipe_names
from r1nb.text.prompts import format_prompt
from r1nb.training.resume import new_run
from r1nb.views.html import visible

COMMANDS = ("train", "plan", "ask", "report", "bench")
LONG = ["max_completion_length=8192", "max_seq_length=8512", "--card", "l4"]
QUESTION = "Which is bigger, 9.10 or 9.9?"


@pytest.fixture
def r1nb(monkeypatch, capsys):
    """Return a function that calls the command and returns (exit code, stdout, stderr)."""

    def call(*words: str):
        monkeypatch.setattr(sys, "argv", ["r1nb", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return call


def in_a_process(*words: str, **environment: str):
    return subprocess.run(
        [sys.executable, *words], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_alone_it_prints_its_help_and_loads_nothing_heavy():
    done = in_a_process("-X", "importtime", "-m", "r1nb")
    assert "Usage: r1nb [OPTIONS] COMMAND" in done.stdout + done.stderr
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", done.stdout + done.stderr, re.MULTILINE)
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "pandas", "datasets"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_examples_and_says_what_comes_next(r1nb, name):
    code, said, _ = r1nb(name, "--help")
    assert code == 0
    assert len(re.findall(rf"^    (r1nb|make) {name}", said, re.MULTILINE)) >= 2
    assert "\n  Next: " in said


def test_help_names_every_recipe_and_every_card(r1nb):
    said = r1nb("train", "--help")[1]
    assert all(f"\n    {name} " in said for name in recipe_names())
    said = r1nb("plan", "--help")[1]
    assert all(re.search(rf"\b{card}, ", said) for card in CARDS)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["trian"], 2, "No such command 'trian'"),
        (["train"], 2, "Missing argument 'RECIPE'"),
        (["train", "tiny-cp"], 1, "did you mean 'tiny-cpu'"),
        (["train", "tiny-cpu", "max_steps"], 1, "The command line holds 'max_steps'; write key=value"),
        (["plan", "auto", "--card", "a10"], 1, "Unknown card 'a10'; did you mean 'a10g'? Cards: t4, l4"),
        (["plan", "auto", "--card", "8"], 1, "the card has less. Name a recipe to see if it fits, or"),
        (
            ["plan", "auto", "--card", "t4", "dtype=bfloat16"],
            1,
            "and Tesla T4 has compute capability 7.5: set",
        ),
        (["plan", "tiny-cpu", "--card", "t4"], 1, "on the CPU, whatever the card: leave out --card t4"),
        (["plan", "llama31-8b-40gb"], 1, "(r1nb plan llama31-8b-40gb --card a100-40)"),
        (["plan", "llama31-8b-80gb", *LONG], 1, "and NVIDIA L4 has 23.6 GB: set per_device_train_batch_"),
        (["ask", "tiny-cpu-001", QUESTION], 1, "is neither a folder nor a run in "),
        (["ask", QUESTION], 1, "There is no finished run yet"),
        (["ask", QUESTION, "--samples", "2"], 2, "greedy answers are all the same; set --temperature"),
        (["ask", "which", "is", "bigger"], 2, "unexpected extra argument"),
        (["report"], 1, "There is no run yet: r1nb train tiny-cpu makes one."),
        (["report", "data"], 1, "'data' is neither a folder nor a run in "),
    ],
)
def test_a_mistake_is_one_sentence_and_wrong_usage_another_code(
    r1nb, monkeypatch, tmp_path, words, code, sentence
):
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path / 'runs'}")
    monkeypatch.chdir(tmp_path)
    ended, _, errors = r1nb(*words)
    assert ended == code
    assert sentence in errors.splitlines()[-1]
    assert len(errors.splitlines()) == 1 or code == 2


def test_train_takes_the_settings_and_prints_paths_that_open_here(r1nb, monkeypatch, tmp_path):
    def record(recipe):
        assert recipe.grpo["max_steps"] == 3
        return new_run(recipe), Proof(8, 8, 8, 1.0, trained=[0.0, 0.0, 0.3])

    monkeypatch.setattr(train, "train", record)
    monkeypatch.chdir(tmp_path)
    code, said, _ = r1nb("train", "tiny-cpu", "max_steps=3", f"runs_dir={tmp_path / 'mine'}")
    assert code == 0
    assert "run folder: mine/tiny-cpu-001" in said


def test_an_interrupted_training_ends_with_a_sentence_and_code_130(r1nb, monkeypatch, tmp_path):
    def interrupted(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupted)
    code, _, errors = r1nb("train", "tiny-cpu", f"runs_dir={tmp_path}")
    assert (code, errors) == (130, "r1nb: Interrupted: run it again to resume from what is saved.\n")


def test_the_plan_for_a_card_says_gb_hours_steps_and_completions(r1nb, monkeypatch, tmp_path):
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path}")
    code, said, _ = r1nb("plan", "auto", "--card", "a100-40", "max_steps=100")
    assert code == 0
    assert said.startswith("Recipe llama31-8b-40gb: Llama-3.1-8B on 40 GB")
    assert "The peak is 38.25 GB; NVIDIA A100-SXM4-40GB has 42 GB." in said
    assert "A step takes 32 completions, and the 100 steps 3,200." in said
    assert re.search(r"A step will take \d+ to \d+ s if .* and the training 2 to 4 hours\.", said)


@pytest.mark.parametrize("given", ["recipe=auto", "recipe=tiny-cpu", ""])
def test_without_a_card_the_plan_is_for_this_machine(r1nb, monkeypatch, tmp_path, given):
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path} {given}")
    code, said, _ = r1nb("plan", "no-such" if given else "auto")
    assert code == 0
    assert said.startswith("This machine: ")
    assert "\nRecipe tiny-cpu: " in said
    assert "; this machine has " in said


def test_the_plan_for_this_machine_includes_what_is_not_installed(r1nb, monkeypatch, tmp_path):
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path}")
    monkeypatch.setattr(hardware, "this_machine", lambda: Machine(2, 13, "Tesla T4", 15.8, (7, 5)))
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setattr(engine, "_FAILED", {})
    code, said, _ = r1nb("plan", "auto")
    assert code == 0
    assert "plain TRL, PEFT and transformers train the same adapter" in said
    assert "\nRecipe llama32-1b-16gb: " in said
    assert "vLLM's CUDA graphs" not in said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return (policy, run) with an adapter that answers otherwise than the base model."""
    recipe = load_recipe("tiny-cpu", runs_dir=str(tmp_path_factory.mktemp("asked") / "runs"))
    policy, run = load_policy(recipe), new_run(recipe)
    attach_lora(policy, recipe)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.02)
    policy.save_adapter(run.adapter, run)
    return policy, run


def answers_of(policy, adapter: bool) -> str:
    recipe = load_recipe("tiny-cpu")
    (answer,) = policy.generate([recipe.layout.build_messages(QUESTION)], recipe.greedy, adapter=adapter)
    return visible(answer.text)


def test_ask_prints_the_greedy_answers_of_base_and_adapter(r1nb, trained, monkeypatch):
    policy, run = trained
    monkeypatch.chdir(run.folder.parent.parent)
    code, said, _ = r1nb("ask", "runs/tiny-cpu-001", QUESTION)
    assert code == 0
    assert said.startswith("runs/tiny-cpu-001/adapter answers, loaded on tiny-policy.\nbase, ")
    base, adapter = (answers_of(policy, side) for side in (False, True))
    assert base != adapter
    assert re.search(rf"\nbase, \d+ tokens(, cut off)?\n{re.escape(base)}\n\nadapter, ", said)
    assert said.endswith(f"{adapter}\n\n")


def test_ask_refuses_a_question_that_is_too_long(r1nb, trained):
    _, run = trained
    code, said, wrong = r1nb("ask", str(run.adapter), QUESTION * 200)
    assert (code, said.count("\n")) == (1, 1)
    assert wrong.endswith("shorten the question.\n")


def test_ask_takes_the_newest_run_and_samples_and_shows_the_prompt(r1nb, trained, monkeypatch):
    policy, run = trained
    monkeypatch.setenv("R1NB_SET", f"runs_dir={run.folder.parent}")
    _, said, _ = r1nb("ask", QUESTION, "--temperature", "1", "--samples", "3", "--show-prompt")
    messages = load_recipe("tiny-cpu").layout.build_messages(QUESTION)
    assert format_prompt(policy.tokenizer, messages) in said
    assert len(re.findall(r"^(base|adapter), \d+ tokens", said, re.MULTILINE)) == 6


def test_without_a_question_ask_is_a_conversation(r1nb, trained, monkeypatch):
    policy, run = trained
    long = "How much is 3 + 4? " * 200
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"How much is 3 + 4?\n{long}\n{QUESTION}\n\nnever read\n"))
    code, said, _ = r1nb("ask", str(run.adapter))
    assert code == 0
    assert said.count("shorten the question") == 1
    assert "Each question stands on its own" in said
    assert said.count("adapter, ") == 2
    assert f"{answers_of(policy, True)}\n\n> " in said


def test_ask_takes_a_merged_model(r1nb, trained, tmp_path, monkeypatch):
    policy, _ = trained
    save_merged(policy, tmp_path / "merged")
    monkeypatch.setattr(sys, "stdin", io.StringIO(QUESTION))  # ends without an empty line
    code, said, _ = r1nb("ask", str(tmp_path / "merged"))
    assert code == 0
    assert "model, " in said
    assert "base, " not in said


@pytest.mark.parametrize("place", ["", "runs", "notebooks", "deep/down", "runs/tiny-cpu-001"])
def test_the_path_of_a_report_opens_from_where_it_is_printed(r1nb, monkeypatch, tmp_path, place):
    folder = tmp_path / "runs"
    write_run(load_recipe("tiny-cpu", runs_dir=str(folder)), 1)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / place)
    monkeypatch.setenv("R1NB_SET", f"runs_dir={folder}")
    for words in (["report"], ["report", "tiny-cpu-001"]):
        code, said, _ = r1nb(*words)
        assert code == 0
        assert (tmp_path / place / said.strip()).resolve() == folder / "tiny-cpu-001" / "report.html"
    assert os.path.isabs(said.strip()) == (place == "deep/down")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("r1nb train tiny", {"tiny-cpu", "tiny-five-rewards", "tiny-r1"}),
        ("r1nb plan auto --card a100", {"a100-40", "a100-80"}),
        ("r1nb ask mine", {"mine-001"}),
        ("r1nb report ", {"mine-001"}),
    ],
)
def test_recipes_cards_and_runs_are_completed(tmp_path, words, found):
    new_run(load_recipe("tiny-cpu", name="mine", runs_dir=str(tmp_path)))
    done = in_a_process(
        "-m", "r1nb", _R1NB_COMPLETE="complete_bash", COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1), R1NB_SET=f"runs_dir={tmp_path}",
    )  # fmt: skip
    assert set(done.stdout.split()) == found
