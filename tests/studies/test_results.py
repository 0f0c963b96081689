"""The committed results include every announced seed, and agree with the claims."""

import csv
import hashlib
from math import inf

import make_policy
import pytest
import yaml

from r1nb.paths import CHECKOUT as ROOT
from r1nb.recipes.loading import load_recipe
from r1nb.studies.experiments import explains, lasting, pooled, reached, read_results, verdict

CLAIMS = make_policy.PLAN["claims"]
PLAN = yaml.safe_load((ROOT / "data" / "controls.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "data" / "default.yaml").read_text())
VARIANTS = yaml.safe_load((ROOT / "data" / "variants.yaml").read_text())
COUNTDOWN = yaml.safe_load((ROOT / "data" / "countdown.yaml").read_text())
RESULTS = ROOT / "data" / "results"


def rows(name: str) -> list[dict]:
    with (RESULTS / name).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def evaluation() -> dict:
    """Return {(seed, stage): row} of the test split with new numbers, for the five equal rewards."""
    table = rows("tiny-five-rewards-evaluation.csv")
    return {(int(r["seed"]), r["stage"]): r for r in table if r["split"] == "test"}


def test_every_announced_seed_is_reported(evaluation):
    assert {seed for seed, _ in evaluation} == set(CLAIMS["seeds"])


@pytest.mark.parametrize("seed", CLAIMS["seeds"])
def test_the_claims_hold_for_each_seed(evaluation, seed):
    before, after = evaluation[seed, "before"], evaluation[seed, "after"]
    for rate in ("strict", "lenient"):
        rise = float(after[rate]) - float(before[rate])
        assert rise >= CLAIMS[f"{rate}_rise"]
        assert float(after[f"{rate}_low"]) > float(before[f"{rate}_high"])
    assert float(before["format"]) <= CLAIMS["format_before_at_most"]
    assert float(after["format"]) >= CLAIMS["format_after_at_least"]
    assert int(after["n"]) >= 200
    assert int(after["train_seconds"]) <= CLAIMS["train_seconds_at_most"]
    rewards = [name for name in after if name.endswith("_reward_func")]
    assert len(rewards) == 5
    assert all(float(after[name]) > 0 for name in rewards)


def table(page, heading: str) -> list[str]:
    """The lines of tables in the part of a page under a heading."""
    part = page.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("| ")]


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_the_files_are_those_with_which_the_results_were_made():
    hashes = DEFAULT["hashes"]
    assert hashes == {name: digest(ROOT / name) for name in hashes}
    assert {"data/tiny-policy/model.safetensors", "data/problems/validation.jsonl"} <= hashes.keys()


@pytest.mark.parametrize("split", ["test", "test_unseen_kinds"])
def test_every_seed_of_the_default_is_reported_and_reaches_its_accuracy(split):
    expected = {("shipped", seed) for seed in DEFAULT["seeds"]}
    results, curves = read_results("default"), read_results("default-curves")
    after = results[(results["stage"] == "after") & (results["split"] == split)]
    assert sorted(zip(after["arm"], after["seed"], strict=True)) == sorted(expected)
    assert set(zip(curves["arm"], curves["seed"], strict=True)) == expected
    assert max(lasting(curves, "shipped", DEFAULT["reading"]["accuracy"]).values()) < inf


@pytest.mark.parametrize("name", ["default-choice", "default-choice-2", "speedrun-choice"])
def test_choices_used_neither_test_problems_nor_reported_seeds(name):
    assert set(read_results(name)["split"]) == {"validation"}
    speedrun = yaml.safe_load((ROOT / "data/speedrun.yaml").read_text())
    assert not {*DEFAULT["seeds"], *speedrun["seeds"]} & set(read_results(name)["seed"])


def test_the_default_recipe_is_the_arm_whose_worst_seed_is_highest():
    results = read_results("default-choice-2")
    worst = results[results["stage"] == "after"].groupby("arm")["strict"].min()
    chosen = yaml.safe_load((ROOT / "data/default-choice-2.yaml").read_text())["arms"][worst.idxmax()]
    recipe = load_recipe("tiny-cpu").grpo
    assert {key: recipe[key] for key in chosen} == chosen


@pytest.mark.parametrize(
    ("page", "heading"),
    [(ROOT / "README.md", "Results"), (RESULTS / "README.md", "The default recipe")],
    ids=["README", "results"],
)
def test_the_tables_of_the_default_hold_its_worst_median_and_best_seed(page, heading):
    results = read_results("default")
    test = results[results["split"] == "test"]
    after = test[test["stage"] == "after"].sort_values("strict")

    def cell(row, rate: str) -> str:
        return f"{row[rate]:.1%} [{100 * row[f'{rate}_low']:.1f}, {100 * row[f'{rate}_high']:.1f}]"

    lines = table(page, heading)
    rates = ("strict", "lenient") if page.parent == ROOT else ("strict",)
    for stage in ("before", "prefilled"):
        (values,) = {
            tuple(cell(row, r) for r in rates) for row in test[test["stage"] == stage].to_dict("records")
        }
        begin = "| before |" if stage == "before" else "| before, prefilled |"
        (line,) = (line for line in lines if line.startswith(begin))
        assert all(value in line for value in values)
    for word, row in (("worst", after.iloc[0]), ("best", after.iloc[-1])):
        (line,) = (
            line for line in lines if "after" in line and f"{word}" in line and str(row["seed"]) in line
        )
        assert all(cell(row, rate) in line for rate in rates)
    (line,) = (line for line in lines if "after" in line and "median" in line)
    assert all(f"{after[rate].median():.1%}" in line for rate in rates)


@pytest.fixture(scope="module")
def controls():
    return read_results("controls")


def test_every_arm_and_seed_of_the_controls_is_reported(controls):
    expected = {(arm, seed) for arm in PLAN["arms"] for seed in PLAN["seeds"]}
    after = controls[controls["stage"] == "after"]
    for split in ("test", "test_unseen_kinds"):
        chosen = after[after["split"] == split]
        assert sorted(zip(chosen["arm"], chosen["seed"], strict=True)) == sorted(expected)


def test_the_results_page_says_which_controls_explain_the_gain(controls):
    lines = table(RESULTS / "README.md", "Controls")
    for arm in ("correctness_only", "format_only", "random", "sft", "sft_prefilled", "shipped"):
        rate = pooled(controls, "test")[arm][0]
        (row,) = (line for line in lines if f"`{arm}`" in line)
        assert f"{rate:.1%}" in row
        assert explains(controls, "test", arm, PLAN["reading"]["explains_within"]) in row.split("|")[-2]


@pytest.mark.parametrize("name", ["variants", "variants-again"])
def test_every_arm_and_seed_of_the_variants_is_reported_on_validation_only(name):
    plan = yaml.safe_load((ROOT / "data" / f"{name}.yaml").read_text())
    expected = {(arm, seed) for arm in plan["arms"] for seed in plan["seeds"]}
    results, curves = read_results(name), read_results(f"{name}-curves")
    assert set(results["split"]) == {"validation"}
    after = results[results["stage"] == "after"]
    assert sorted(zip(after["arm"], after["seed"], strict=True)) == sorted(expected)
    looks = {key: list(group["step"]) for key, group in curves.groupby(["arm", "seed"])}
    assert set(looks) == expected
    assert all(steps == list(range(0, 65, 4)) for steps in looks.values())


def test_the_default_rank_follows_from_the_rule_of_the_variants():
    curves = read_results("variants-again-curves")
    needs = [reached(curves, arm, VARIANTS["reading"]["accuracy"]) for arm in ("rank_8", "shipped")]
    assert load_recipe("tiny-cpu").lora.r == (8 if verdict(*needs) == "less" else 16)


def test_the_results_page_says_on_how_many_seeds_the_claims_on_countdown_held():
    results, claims = read_results("countdown"), COUNTDOWN["claims"]
    assert set(results["seed"]) == set(COUNTDOWN["seeds"])
    assert set(results["n"]) == {280}
    strict = results.pivot(index="seed", columns="stage", values="strict")
    form = results.pivot(index="seed", columns="stage", values="format")
    held = {
        "more than before": strict["after"] - strict["before"] >= claims["strict_rise"],
        "prefilled with `<think>`": strict["after"] - strict["prefilled"] >= claims["rise_beyond_prefilled"],
        "format in at least": form["after"] >= claims["format_after_at_least"],
    }
    page = (RESULTS / "README.md").read_text()
    for row in results[results["stage"] == "after"].to_dict("records"):
        low, high = 100 * row["strict_low"], 100 * row["strict_high"]
        assert f"{100 * row['strict']:.1f} % [{low:.1f}, {high:.1f}]" in page
    lines = table(RESULTS / "README.md", "Countdown")
    for words, seeds in held.items():
        (row,) = (line for line in lines if words in line and "of 3 seeds" in line)
        assert f"{seeds.sum()} of 3 seeds" in row


def test_all_killed_runs_were_resumed():
    log = rows("torture.csv")
    assert len(log) == 20
    for row in log:
        assert (row["each step once"], row["adapter identical"], row["within its interval"]) == ("True",) * 3
    assert {row["victim"] for row in log} == {"all", "trainer", "proof"}
    assert sum(row["went on from step"] not in ("", "0") for row in log) >= 5


def test_every_entry_and_seed_of_the_speedrun_is_reported():
    plan = yaml.safe_load((ROOT / "data/speedrun.yaml").read_text())
    expected = {(arm, seed) for arm in plan["arms"] for seed in plan["seeds"]}
    results, curves = read_results("speedrun"), read_results("speedrun-curves")
    after = results[results["stage"] == "after"]
    assert sorted(zip(after["arm"], after["seed"], strict=True)) == sorted(expected)
    assert set(zip(curves["arm"], curves["seed"], strict=True)) == expected
    page = (RESULTS / "README.md").read_text()
    needs = {arm: lasting(curves, arm, plan["reading"]["accuracy"]) for arm in plan["arms"]}
    for arm, seeds in needs.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{arm}`: "))
        counts = {f"{count:,.0f}" if count < inf else "never" for count in seeds.values()}
        assert all(count in row for count in counts)
    median = {arm: sorted(seeds.values())[2] for arm, seeds in needs.items()}
    assert median["small_32"] <= median["trl"] < median["shipped"] < inf == median["demo"]


def test_every_hole_was_found_and_no_other_reward_was_accused():
    checked = rows("check-rewards.csv")
    assert len([line for line in checked if line["planted hole"] == "True"]) == 21
    assert all((line["problems"] != "0") == (line["planted hole"] == "True") for line in checked)
