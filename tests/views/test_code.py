"""The code that notebook 03 shows is complete, runs when pasted, and trains the same adapter."""

import ast
import subprocess
import sys

import nbformat
import pytest
from safetensors.torch import load_file

from r1nb.machine.configs import grpo_arguments
from r1nb.paths import NOTEBOOKS
from r1nb.policy.loading import adapter_arguments, loading_arguments
from r1nb.recipes.loading import load_recipe, recipe_names
from r1nb.rewards.registry import find_reward
from r1nb.runs.run import CARD
from r1nb.text.prompts import THINK
from r1nb.train import train
from r1nb.views.code import training_code

FIVE = load_recipe("tiny-five-rewards").rewards  # they teach something in three steps
SHORT = {"max_steps": 3, "per_device_train_batch_size": 16, "torch_threads": 1, "save_steps": 3}
SAVE = '\ntrainer.model.save_pretrained("adapter")\n'


def paste(code: str, folder) -> dict:
    """Run the code in a new process, and return the weights of the adapter that it saves."""
    done = subprocess.run(
        [sys.executable, "-c", code + SAVE], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return load_file(folder / "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def program():
    return "\n".join(training_code(load_recipe("tiny-cpu", **SHORT, rewards=FIVE), "out").values())


def test_the_pasted_code_trains_the_adapter_of_a_run_bit_for_bit(program, tmp_path):
    recipe = load_recipe(
        "tiny-cpu", **SHORT, rewards=FIVE, runs_dir=str(tmp_path / "runs"),
        test_problems=8, validation_problems=8, samples=1, sampled_problems=4,
    )  # fmt: skip
    run, _ = train(recipe)
    ours, pasted = load_file(run.adapter / "adapter_model.safetensors"), paste(program, tmp_path)
    assert ours.keys() == pasted.keys()
    assert all(ours[name].equal(pasted[name]) for name in ours)
    assert any(weight.abs().max() > 0 for name, weight in pasted.items() if "lora_B" in name)


def test_the_pasted_code_runs_with_plain_trl(program, tmp_path):
    plain = program.replace("from r1nb import SharedPromptTrainer, load_rows", "from r1nb import load_rows")
    plain = plain.replace(
        "trainer = SharedPromptTrainer(", "from trl import GRPOTrainer\ntrainer = GRPOTrainer("
    )
    assert "SharedPromptTrainer" not in plain
    pasted = paste(plain, tmp_path)
    assert any(weight.abs().max() > 0 for name, weight in pasted.items() if "lora_B" in name)


def call_in(code: str, name: str) -> dict:
    """Return the arguments of a call in some code: {name: value, or source text if it is not a literal}."""
    (call,) = (
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name)
    )
    found = {}
    for argument in call.keywords:
        try:
            found[argument.arg] = ast.literal_eval(argument.value)
        except ValueError:
            found[argument.arg] = ast.unparse(argument.value)
    return found


@pytest.mark.parametrize("name", recipe_names())
def test_the_code_of_each_recipe_is_complete(name):
    recipe = load_recipe(name)
    code = training_code(recipe, "out")
    assert max(len(line) for part in code.values() for line in part.splitlines()) < 100
    base = recipe.model.model_name
    assert f'"{base}"' in code["model"]
    shown = call_in(
        code["model"], "Model.from_pretrained" if recipe.model.engine == "unsloth" else "LM.from_pretrained"
    )
    assert {key: str(value) for key, value in loading_arguments(recipe).items()} == {
        key: str(value) for key, value in shown.items() if key
    }
    if recipe.lora:
        made = "get_peft_model" if recipe.model.engine == "unsloth" else "LoraConfig"
        assert call_in(code["adapter"], made) == adapter_arguments(recipe)
    assert call_in(code["settings"], "GRPOConfig") == {"output_dir": "out"} | grpo_arguments(recipe)
    for reward in recipe.rewards:
        assert reward in code["rewards"]
    assert f'"{recipe.data.dataset}"' in code["trainer"]


@pytest.mark.parametrize(
    "recipe",
    [
        load_recipe("countdown-cpu"),
        load_recipe("tiny-cpu", rewards={"overlong_reward_func": 1.0, "math_reward_func": 0.5}),
        load_recipe("tiny-cpu", rewards={"language_reward_func": 1.0}, layout="think"),
    ],
    ids=["countdown", "overlong", "think"],
)
def test_the_rewards_in_the_code_are_those_of_the_recipe(recipe):
    scope = {}
    exec(training_code(recipe, "out")["rewards"], scope)
    text = THINK.format_reply("We add 2 and 2.", "4")
    columns = {"nums": [2, 2], "target": 4, "completion_ids": [0] * 105}
    for made, meant in zip(scope["reward_funcs"], recipe.judge().rewards.values(), strict=True):
        assert made.__name__ == meant.__name__
        assert made.explain(text, "4", **columns) == meant.explain(text, "4", **columns)
        assert made.high == find_reward(meant.__name__).high


def test_an_override_shows_its_value_without_the_old_reason():
    before, after = load_recipe("tiny-cpu"), load_recipe("tiny-cpu", learning_rate=2e-4, rewards=FIVE)
    assert before.why["learning_rate"] in " ".join(training_code(before, "out")["settings"].split())
    settings = training_code(after, "out")["settings"]
    assert "    learning_rate=0.0002,\n" in settings
    assert "learning_rate" not in after.why
    assert "lora_alpha" in after.why
    assert "correctness_reward_func" not in after.why  # it is no longer the only one


def test_a_recipe_like_another_drops_the_reasons_for_values_that_it_changes(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "like: tiny-cpu\ngrpo: {beta: 0.04, max_steps: 9}\nwhy: {beta: mine}\n"
    )
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.why["beta"] == "mine"
    assert "max_steps" not in recipe.why
    assert "temperature" in recipe.why


def test_notebook_03_shows_the_code_of_the_default_recipe():
    notebook = nbformat.read(NOTEBOOKS / "03_train_grpo.ipynb", as_version=4)
    shown = [
        output.data["text/markdown"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    code = training_code(load_recipe("tiny-cpu"), "runs/pasted")
    assert shown[:-1] == [part._repr_markdown_() for part in code.values()]  # the last: how to serve it


def test_the_adapter_to_start_from_has_a_path_that_opens_from_the_notebook(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "runs/first-001/adapter").mkdir(parents=True)
    (tmp_path / "runs/first-001/adapter" / CARD).touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    recipe = load_recipe("tiny-cpu", start_from="first-001", runs_dir=str(tmp_path / "runs"))
    assert '"../runs/first-001/adapter"' in training_code(recipe, "pasted")["adapter"]
