"""A run of another r1nb, of another TRL or of another process can be sampled from and proven."""

import subprocess
import sys

import pytest
import yaml

from r1nb.errors import UserError, say_once
from r1nb.evaluation.accuracy import evaluate
from r1nb.evaluation.proof import prove
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.trained import load_trained
from r1nb.recipes.loading import load_recipe, recipe_of_run
from r1nb.rewards import registry
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_split
from r1nb.training.resume import begin_run, new_run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a run that saved an adapter; the tests change its recipe.yaml."""
    recipe = load_recipe("tiny-cpu", runs_dir=str(tmp_path_factory.mktemp("runs")), torch_threads=1)
    run, policy = new_run(recipe), load_policy(recipe)
    attach_lora(policy, recipe)
    policy.save_trained(run)
    return run, yaml.safe_load((run.folder / "recipe.yaml").read_text())


@pytest.fixture
def changed(saved):
    """Return a function that changes sections of the run's recipe.yaml, and returns the run."""
    run, settings = saved

    def change(**sections):
        new = settings | {
            key: settings.get(key, {}) | value if isinstance(value, dict) and key != "rewards" else value
            for key, value in sections.items()
        }
        (run.folder / "recipe.yaml").write_text(yaml.safe_dump(new, sort_keys=False))
        return Run(run.folder)

    say_once.cache_clear()
    registry._OWN.clear()
    return change


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"grpo": {"max_prompt_length": 192}}, "has grpo.max_prompt_length = 192"),
        ({"grpo": {"use_liger_loss": True, "vllm_device": "auto"}}, "has grpo.vllm_device"),
        ({"grpo": {"loss_type": "of_yesterday"}}, "has grpo.loss_type = 'of_yesterday'"),
        ({"grpo": {"eval_strategy": "steps", "top_k": -1}}, "has grpo.top_k = -1"),
        ({"grpo": {"deepspeed": "zero.json"}}, "has grpo.deepspeed = 'zero.json'"),
        ({"data": {"sampler": "random"}}, "has data.sampler = 'random'"),
        ({"model": {"device": "cpu"}}, "has model.device = 'cpu'"),
        ({"lora": {"r": 0}}, "lacks lora.r: 16 is used instead"),
        ({"held_out": {"problems": 60}}, "has held_out = {'problems': 60}"),
        ({"evaluation": None}, "lacks evaluation"),
        ({"grpo": {"max_completion_length": None}}, "lacks grpo.max_completion_length: 112 is used instead"),
        ({"why": ["no", "mapping"]}, "has why"),
        ({"sft": {"max_seq_len": 99, "max_steps": 3}}, "has sft.max_seq_len = 99"),
        ({"rewards": {"brief_reward_func": 1.0}}, "unknown here; left out: brief_reward_func."),
    ],
)
def test_what_is_unknown_here_is_left_out_aloud_and_refused_for_training(changed, capsys, sections, words):
    run = changed(**sections)
    recipe = recipe_of_run(run)
    assert words in capsys.readouterr().out
    assert recipe.grpo["max_completion_length"] == 112
    if sections.get("evaluation", 1) and "lora" not in sections:  # nothing else is lost
        kept = {"seed", "learning_rate", "num_generations"}
        assert {key: recipe.grpo[key] for key in kept} == {key: run.recipe["grpo"][key] for key in kept}
    with pytest.raises(UserError):
        load_recipe(run)


def test_such_a_run_is_sampled_from(changed, capsys):
    run = changed(grpo={"max_prompt_length": 192}, rewards={"brief_reward_func": 1.0})
    policy, recipe, trained = load_trained(run.folder)
    assert (policy.has_adapter, trained, recipe.lora.r) == (True, run.adapter, 16)
    said = capsys.readouterr().out
    assert "left out: brief_reward_func." in said
    assert "has grpo.max_prompt_length = 192" in said


@pytest.mark.parametrize("torn", ["", "model: {", "grpo: 3"])
def test_a_run_with_a_torn_recipe_is_sampled_from_by_its_card(changed, capsys, torn):
    run = changed()
    (run.folder / "recipe.yaml").write_text(torn)
    for folder in (run.folder, run.adapter):
        policy, recipe, trained = load_trained(folder)
        assert (policy.has_adapter, trained, recipe.name) == (True, run.adapter, "tiny-cpu")
    assert capsys.readouterr().out.count("recipe.yaml is not a recipe") == 1


def test_a_run_whose_reward_only_this_process_knows_is_proven(changed):
    @registry.reward(high=1.0, judges="answer")
    def brief_reward_func(text: str, answer: str) -> float:
        return 1.0 if len(text) < 40 else 0.0

    run = changed(grpo={"max_prompt_length": 192}, rewards={"brief_reward_func": 1.0})
    policy, recipe, _ = load_trained(run.folder)
    rows = load_split(recipe.data, "test").select(range(4))
    graded = evaluate(policy, rows, recipe.judge(rows.column_names), recipe.greedy, 4)
    proof = prove(run, rows, trained=graded, base=graded)
    assert (proof.n, proof.same_as_trained) == (4, 4)
    assert proof.strict == proof.trained[0] == sum(len(g.completion) < 40 for g in graded) / 4
    registry._OWN.clear()
    with pytest.raises(UserError, match=r"Unknown reward 'brief_reward_func'.*Define your own with @reward"):
        prove(run, rows, trained=graded, base=graded)


def test_another_process_reads_such_a_run_but_does_not_train_it(changed):
    run = changed(rewards={"brief_reward_func": 1.0})
    code = (
        "from r1nb.runs.run import Run; from r1nb.recipes.loading import *\n"
        f"run = Run({str(run.folder)!r}); print(run.recipe['lora']['r'], recipe_of_run(run).rewards)\n"
        "load_recipe(run)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "16 {'xmlcount_reward_func': 1.0}"
    assert "Unknown reward 'brief_reward_func'" in done.stderr
    assert "Define your own with @reward before you use it." in done.stderr


def test_begin_run_passes_over_a_torn_run(changed, capsys):
    run = changed()
    recipe = load_recipe("tiny-cpu", runs_dir=str(run.folder.parent), torch_threads=1)
    (run.folder / "recipe.yaml").write_text("grpo: {")
    assert begin_run(recipe).name == "tiny-cpu-002"
    assert "tiny-cpu-001/recipe.yaml is not a recipe" in capsys.readouterr().out
