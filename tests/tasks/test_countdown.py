"""The bundled Countdown problems are solvable, their splits are disjoint, and the corpus has its shares."""

import json
import random
from itertools import islice

import make_countdown
import make_countdown_policy
import make_policy
import pytest
import yaml
from make_countdown import SIZES, TARGETS, bundled, draw, split_of

from r1nb.evaluation.reflection import read_reflection
from r1nb.paths import CHECKOUT as ROOT
from r1nb.paths import DATA
from r1nb.policy.loading import load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_rows, load_splits
from r1nb.text.arithmetic import evaluate_expression, solve_countdown
from r1nb.text.prompts import THINK

PLAN = make_countdown_policy.PLAN


def shipped(split: str) -> list[dict]:
    lines = (DATA / "countdown" / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("split", SIZES)
def test_the_script_makes_the_shipped_files_and_all_problems_are_solvable(split):
    rows = shipped(split)
    assert rows == [problem.row() for problem in bundled(split)]
    assert len(rows) == SIZES[split]
    for row in rows:
        assert solve_countdown(row["nums"], row["target"])
        assert TARGETS[0] <= row["target"] <= TARGETS[1]


def test_no_validation_or_test_problem_is_trained_on():
    sealed = {(*sorted(r["nums"]), r["target"]) for split in ("validation", "test") for r in shipped(split)}
    assert len(sealed) == SIZES["validation"] + SIZES["test"]
    assert not sealed & {(*sorted(r["nums"]), r["target"]) for r in shipped("train")}
    for phase in PLAN["corpus"]["phases"]:
        pairs = islice(make_policy.phase_corpus(phase, PLAN, make_countdown_policy.draw_corpus), 8000)
        for problem, _ in pairs:
            assert (*sorted(problem.nums), problem.target) not in sealed


def test_the_order_of_the_numbers_does_not_decide_the_split():
    for split in ("train", "validation", "test"):
        problem = draw(random.Random(0), split)
        assert split_of(problem.nums, problem.target) == split
        assert split_of(problem.nums[::-1], problem.target) == split


def test_every_attempt_is_true():
    for problem in bundled("validation")[:100]:
        attempts = problem.attempts()
        assert any(attempt.value == problem.target for attempt in attempts)
        for attempt in attempts:
            value, used = evaluate_expression(attempt.expression)
            assert value == attempt.value
            assert sorted(used) == sorted(problem.nums)


@pytest.mark.parametrize("name", PLAN["corpus"]["phases"])
def test_the_corpus_has_its_stated_shares(name):
    phase = PLAN["corpus"]["phases"][name]
    pairs = list(make_countdown_policy.draw_corpus("shares", phase, 6000))
    bare = [(problem, reply) for problem, reply in pairs if "<think>" not in reply]
    assert len(bare) / len(pairs) == pytest.approx(phase["ways"]["bare"], abs=0.03)
    right = [evaluate_expression(reply)[0] == problem.target for problem, reply in bare]
    assert sum(right) / len(right) == pytest.approx(phase["right"]["bare"], abs=0.06)
    read = [read_reflection(reply, problem.question) for problem, reply in pairs]
    missed = sum(problem.attempts()[0].value != problem.target for problem, _ in pairs) / len(pairs)
    searches = [r for r in read if r.backtracks]
    assert len(searches) / len(pairs) == pytest.approx(phase["ways"]["search"] * missed, abs=0.04)
    assert all(r.right and r.hits == (*(len(r.hits) - 1) * [False], True) for r in searches)
    assert any(r.checks for r in read)
    assert any(r.words for r in read)
    assert all(not THINK.read_answer(reply)[1] for _, reply in pairs if "<think>" in reply)


def test_the_recipe_loads_its_rows_and_its_policy():
    recipe = load_recipe("countdown-cpu")
    train, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert (len(train), len(validation), len(tests["test"])) == (1200, 60, 280)
    policy = load_policy(recipe)
    assert policy.tokenizer.tokenize("12*3=36") == list("12*3=36")
    ids = policy.tokenizer.apply_chat_template(train[0]["prompt"], add_generation_prompt=True)["input_ids"]
    assert len(ids) <= recipe.data.max_prompt_length
    size = sum(path.stat().st_size for path in (DATA / "tiny-countdown").iterdir())
    assert size < 6e6


def test_the_problems_load_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundled-countdown").mkdir()  # the shipped name comes first
    row = load_rows("bundled-countdown", "test", layout=THINK)[0]
    assert row["nums"] == list(bundled("test")[0].nums)
    assert load_recipe("countdown-cpu").data.dataset == "bundled-countdown"


def test_the_8b_recipe_keeps_test_and_validation_apart(tmp_path):
    """Its slices are applied to a local file with the columns of the dataset on the Hub."""
    rows = [{"target": n, "nums": [n, n + 1, n + 2]} for n in range(10, 1010)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = yaml.safe_load((ROOT / "r1nb" / "recipes" / "llama31-8b-countdown.yaml").read_text())["data"]
    assert raw["dataset"] == "Jiayi-Pan/Countdown-Tasks-3to4"
    assert raw["layout"] == "think"
    slices = {"validation_split": raw["validation_split"], "test_splits": raw["test_splits"]}
    recipe = load_recipe("countdown-cpu", dataset=str(tmp_path), train_split="train", **slices)
    train, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    parts = [set(part["target"]) for part in (train, validation, *tests.values())]
    assert [len(part) for part in parts] == [500, 60, 300]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_a_problem_with_its_numbers_in_another_order_is_not_trained_on(tmp_path, capsys):
    rows = [{"nums": [n, 3, 4], "target": n + 7} for n in range(20, 60)]
    turned = [{"nums": row["nums"][::-1], "target": row["target"]} for row in rows]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turned[:10]))
    slices = {"validation_split": "train[-5:]", "test_splits": ["test"]}
    recipe = load_recipe("countdown-cpu", dataset=str(tmp_path), train_split="train", **slices)
    train, _, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert len(tests["test"]) == 10
    assert [row["target"] for row in train] == [row["target"] for row in rows[10:-5]]
    assert "Dropped 15 training rows" in capsys.readouterr().out


def test_make_countdown_draws_no_problem_out_of_range():
    rng = random.Random(1)
    low, high = make_countdown.NUMBERS
    assert all(low <= n <= high for _ in range(200) for n in draw(rng, "train").nums)
