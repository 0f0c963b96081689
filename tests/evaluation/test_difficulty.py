"""Pass rates of the base policy: they are measured once, and only useful problems are kept."""

import json
import shutil

import pytest

from r1nb.errors import UserError
from r1nb.evaluation.difficulty import keep_by_difficulty, pass_rates
from r1nb.paths import DATA
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_splits


@pytest.fixture(scope="module")
def policy():
    return load_policy(load_recipe("tiny-cpu"))


@pytest.fixture
def recipe_of(tmp_path):
    return lambda **settings: load_recipe("tiny-cpu", runs_dir=str(tmp_path), **settings)


def test_without_bounds_nothing_is_measured(policy, recipe_of, capsys):
    recipe = recipe_of()
    rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]
    assert keep_by_difficulty(policy, rows, recipe) is rows
    assert capsys.readouterr().out == ""


def test_the_pass_rates_of_the_tiny_policy_ship_with_it(policy, recipe_of, capsys):
    recipe = recipe_of(min_pass_rate=0.125, max_pass_rate=0.875)
    rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]
    kept = keep_by_difficulty(policy, rows, recipe)
    rates = pass_rates(policy, rows, recipe)
    assert len(kept) == sum(0.125 <= rate <= 0.875 for rate in rates)
    said = capsys.readouterr().out
    assert "Measuring" not in said
    assert f"Kept {len(kept)} of 1500 training problems" in said
    few = rows.select(range(3))
    (shipped,) = (DATA / "tiny-policy").glob("pass-rates-*.json")
    assert set(pass_rates(policy, few, recipe)) <= set(json.loads(shipped.read_text()).values())


def test_new_problems_are_measured_once_and_reproducibly(policy, recipe_of, capsys, tmp_path):
    recipe = recipe_of(temperature=0.9)  # not the temperature of the shipped rates
    rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0].select(range(6))
    rates = pass_rates(policy, rows, recipe)
    assert "Measuring the base policy's pass rate on 6 problems" in capsys.readouterr().out
    assert pass_rates(policy, rows.select([5, 0]), recipe) == [rates[5], rates[0]]
    assert capsys.readouterr().out == ""
    (kept,) = tmp_path.glob("pass-rates-*.json")
    assert len(json.loads(kept.read_text())) == 1506 - 1500 + len(json.loads(
        next((DATA / "tiny-policy").glob("pass-rates-*.json")).read_text()
    ))  # fmt: skip
    kept.unlink()
    assert pass_rates(policy, rows, recipe) == rates  # the samples are seeded


def test_the_base_is_measured_even_if_the_policy_has_an_adapter(recipe_of):
    recipe = recipe_of()
    policy = load_policy(recipe)
    rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0].select(range(4))
    before = pass_rates(policy, rows, recipe)
    attach_lora(policy, recipe)
    assert pass_rates(policy, rows, recipe) == before


def test_bounds_that_leave_too_few_problems_are_refused(policy, recipe_of):
    recipe = recipe_of(min_pass_rate=0.99, max_pass_rate=0.995)
    rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]
    with pytest.raises(UserError, match=r"0\.99 to 0\.995; TRL takes 8 at once: lower min_pass_rate"):
        keep_by_difficulty(policy, rows, recipe)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_pass_rate": 0.8, "max_pass_rate": 0.2}, "min_pass_rate = 0.8 is above max_pass_rate = 0.2"),
        ({"max_pass_rate": 50}, r"max_pass_rate = 50: must be at most 1\."),
    ],
)
def test_impossible_bounds_are_refused(recipe_of, settings, words):
    with pytest.raises(UserError, match=words):
        recipe_of(**settings)


def test_another_prompt_format_is_measured_anew(recipe_of, tmp_path, capsys):
    shutil.copytree(DATA / "tiny-policy", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(
        "{{ messages[0].content + messages[1].content }}{% if short %}{{ 'Short: ' }}{% endif %}"
    )
    model = str(tmp_path / "model")
    for options in ({"model_name": model}, {"model_name": model, "chat_template_kwargs": {"short": True}}):
        recipe = recipe_of(max_completion_length=4, **options)
        rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0].select(range(2))
        pass_rates(load_policy(recipe), rows, recipe)
        assert "pass rate on 2 problems" in capsys.readouterr().out
        pass_rates(load_policy(recipe), rows, recipe)
        assert "pass rate" not in capsys.readouterr().out
