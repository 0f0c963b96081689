"""Which recipe a machine gets, what is refused before a download, and what a run records of its machine."""

import subprocess
import sys

import pytest

from r1nb.errors import UserError
from r1nb.machine import fitting, hardware
from r1nb.machine.configs import check_configs
from r1nb.machine.fitting import choose_recipe
from r1nb.machine.hardware import (
    LADDER,
    Machine,
    environment,
    require,
    smaller_recipe,
    suggest_recipe,
)
from r1nb.recipes.loading import load_recipe, recipe_names


@pytest.mark.parametrize(
    ("gpu", "memory", "name"),
    [
        (None, 0.0, "tiny-cpu"),
        ("NVIDIA GeForce RTX 3060", 12.6, "tiny-cpu"),
        ("Tesla T4", 15.8, "llama32-1b-16gb"),
        ("NVIDIA L4", 23.6, "llama31-8b-24gb"),
        ("NVIDIA GeForce RTX 4090", 25.4, "llama31-8b-24gb"),
        ("Tesla V100-SXM2-32GB", 34.1, "llama31-8b-24gb"),
        ("NVIDIA A100-SXM4-40GB", 42.4, "llama31-8b-40gb"),
        ("NVIDIA H100 80GB HBM3", 85.0, "llama31-8b-80gb"),
        ("NVIDIA H200", 150.0, "llama31-8b-141gb"),
    ],
)
def test_auto_takes_the_recipe_for_the_card_and_says_why(gpu, memory, name):
    suggested, reason = suggest_recipe(Machine(8, 64, gpu, memory))
    assert suggested == name
    assert name in recipe_names()
    assert gpu is None or gpu in reason


def test_the_next_smaller_recipe_is_for_the_next_smaller_card():
    names = list(LADDER)
    assert [smaller_recipe(name) for name in names] == [None, *names[:-1]]
    assert smaller_recipe("tiny-cpu") is None


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Pretend that the machine has no GPU; return the folder of the runs."""
    monkeypatch.setattr(fitting, "this_machine", lambda: Machine(2, 13))
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path}")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "given"),
    [([], ""), (["auto"], ""), (["tiny-r1"], "recipe=auto"), (["no-such"], "recipe=auto")],
)
def test_auto_works_as_argument_and_in_r1nb_set(small, monkeypatch, capsys, arguments, given):
    monkeypatch.setenv("R1NB_SET", f"runs_dir={small} max_steps=3 {given}")
    recipe = choose_recipe(*arguments)
    assert (recipe.name, recipe.grpo["max_steps"]) == ("tiny-cpu", 3)
    assert "Recipe tiny-cpu: " in capsys.readouterr().out


def test_a_named_run_still_says_which_recipe_was_chosen_and_why(small, capsys):
    assert choose_recipe(name="first try").name == "first-try"
    said = capsys.readouterr().out
    assert "Recipe tiny-cpu, runs named first-try: " in said
    assert "(without a GPU, the tiny policy learns in minutes)" in said


def test_auto_can_be_an_override_and_r1nb_set_overrides_it(small, monkeypatch):
    assert choose_recipe("no-such", recipe="auto").name == "tiny-cpu"
    monkeypatch.setenv("R1NB_SET", f"runs_dir={small} recipe=tiny-r1")
    assert choose_recipe("auto").name == choose_recipe("no-such", recipe="auto").name == "tiny-r1"


def test_auto_gives_another_recipe_on_another_machine(small, monkeypatch):
    monkeypatch.setattr(fitting, "this_machine", lambda: Machine(2, 13, "Tesla T4", 15.8))
    monkeypatch.setattr(fitting, "require", lambda recipe, machine: None)
    monkeypatch.setattr(fitting, "fall_back", lambda recipe: recipe)
    monkeypatch.setenv("R1NB_SET", f"runs_dir={small} recipe=auto")
    assert choose_recipe("tiny-cpu").name == "llama32-1b-16gb"


@pytest.mark.parametrize("build", ["raise ImportError('no kernel image')", None])
def test_a_machine_without_a_working_unsloth_still_gets_its_recipe(tmp_path, build):
    if build:
        (tmp_path / "unsloth").mkdir()
        (tmp_path / "unsloth" / "__init__.py").write_text(build)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "import torch; torch.cuda.is_available = lambda: True; from r1nb.machine import fitting; "
        "fitting.check_configs = lambda recipe: None; "
        "card = fitting.Machine(2, 13, 'Tesla T4', 15.8); "
        "fitting.this_machine = lambda: card; print(fitting.choose_recipe().model.engine)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    reason = "no kernel image" if build else "No module named 'unsloth'"
    assert "Recipe llama32-1b-16gb: " in said
    assert f"Unsloth cannot be imported ({reason})" in said
    assert said.strip().endswith("transformers")


@pytest.mark.parametrize(
    ("section", "setting", "words"),
    [
        ("grpo", {"use_vllm": True}, "use_vllm = True, and vllm is not installed"),
        ("grpo", {"optim": "adamw_8bit"}, "optim = 'adamw_8bit' needs bitsandbytes: set optim"),
        ("grpo", {"optim": "paged_adamw_32bit"}, "set optim=adamw_torch"),
        ("sft", {"optim": "paged_adamw_8bit"}, "set sft.optim=adamw_torch"),
        (
            "sft",
            {"optim": "lion_32bit"},
            "sft.optim = 'lion_32bit' needs bitsandbytes: set sft",
        ),
    ],
)
def test_a_library_that_a_setting_needs_is_named_before_any_download(monkeypatch, section, setting, words):
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    recipe = load_recipe("tiny-r1")
    getattr(recipe, section).update(setting)
    with pytest.raises(UserError, match=words):
        require(recipe, Machine(2, 13))


def test_settings_whose_libraries_are_installed_are_accepted(monkeypatch):
    recipe = load_recipe("tiny-r1", **{"optim": "paged_adamw_8bit", "sft.optim": "adamw_torch_8bit"})
    monkeypatch.setattr(hardware, "find_spec", lambda name: name == "bitsandbytes" or None)
    require(recipe, Machine(2, 13))
    recipe.grpo["optim"] = "adamw_torch"  # adamw_torch_8bit is part of torchao
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    require(recipe, Machine(2, 13))


@pytest.mark.parametrize("name", [*LADDER, "llama31-8b-seed"])
def test_every_gpu_recipe_is_refused_without_a_gpu_before_any_download(small, name):
    with pytest.raises(UserError, match=f"Recipe {name} needs a CUDA GPU"):
        choose_recipe(name)
    check_configs(load_recipe(name))  # TRL accepts it


def test_several_processes_are_refused_where_only_one_is_supported(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="sft is for one process and 2 are running"):
        require(load_recipe("tiny-r1"), Machine(2, 13))
    with pytest.raises(UserError, match="engine=unsloth is for one process and 2 are running"):
        require(load_recipe("llama31-8b-40gb"), Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4))
    with pytest.raises(
        UserError, match=r"Recipe llama31-8b-seed-4gpu trains in 3 processes, .*, but this run has 2"
    ):
        require(load_recipe("llama31-8b-seed-4gpu"), Machine(26, 200, "NVIDIA H100 80GB HBM3", 85.0))


def test_a_machine_is_described_in_one_line():
    assert str(Machine(1, 13.2)) == "1 CPU core, 13 GB of memory, no CUDA GPU"
    assert str(Machine(2, 13, "Tesla T4", 15.8)) == "Tesla T4 with 16 GB; 2 CPU cores, 13 GB of memory"


def test_a_run_records_the_versions_that_are_installed():
    recorded = environment()
    assert {"r1nb", "torch", "transformers", "trl", "peft"} <= set(recorded["versions"])
    assert "CPU core" in recorded["machine"]
