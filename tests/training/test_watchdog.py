"""Each fault in the figures is named, once; recorded healthy figures are left in peace."""

import random

import pandas
import pytest

from r1nb.recipes.recipe import load_recipe
from r1nb.rewards.registry import reward
from r1nb.training.watchdog import find_alarms, window

WINDOW = 10  # lines, with tiny-cpu's eight groups a step

FIVE = ("correctness", "int", "strict_format", "soft_format", "xmlcount")


def healthy(n: int) -> list[dict]:
    """Figures of a tiny-cpu run (ten-step means of seed 1), as its history has them."""
    zero_std = [0.62, 0.42, 0.06, 0.0, 0.0, 0.03]
    entropy = [0.66, 0.54, 0.26, 0.18, 0.14, 0.11]
    length = [7.1, 9.0, 23.6, 39.2, 41.8, 43.7]
    reward = [0.1, 0.3, 1.2, 2.1, 2.6, 3.0]
    lines = []
    for step in range(1, n + 1):
        i = min((step - 1) // 10, 5)
        lines.append(
            {"step": step, "reward": reward[i], "entropy": entropy[i], "completions/mean_length": length[i],
             "frac_reward_zero_std": zero_std[i], "grad_norm": 0.3, "loss": -0.4,
             "completions/clipped_ratio": 0.0, "adapter/norm": 0.1 * step}
            | {f"rewards/{name}_reward_func/mean": 0.1 * reward[i] for name in FIVE}
        )  # fmt: skip
    return lines


def with_fault(n=2 * WINDOW, last=WINDOW, **figures):
    """Healthy figures, the last ones of which are replaced."""
    lines = healthy(n)
    for line in lines[-last:]:
        line.update({key.replace("__", "/"): value for key, value in figures.items()})
    return lines


def kinds(history, **settings):
    return {advice.kind for advice in find_alarms(history, load_recipe(**settings))}


def test_a_healthy_run_is_left_in_peace():
    lines = healthy(64)
    for n in range(len(lines) + 1):
        assert find_alarms(lines[:n], load_recipe()) == []


def looks(**rates):
    """Looks at 60 held-out problems after some steps."""
    return [{"step": int(s[1:]), "validation/strict": rate, "validation/n": 60} for s, rate in rates.items()]


SILENT = {f"rewards__{name}_reward_func__mean": 0.0 for name in FIVE}
FAULTS = {
    "not_finite": with_fault(last=1, adapter__norm=float("nan")),
    "unjudged": with_fault(last=3, reward=None),
    "exploded": with_fault(entropy=4.0),
    "silent_correctness_reward_func": with_fault(last=2 * WINDOW, rewards__correctness_reward_func__mean=0.0),
    "nothing_earned": with_fault(last=2 * WINDOW, frac_reward_zero_std=1.0, reward=0.0, **SILENT),
    "no_end": with_fault(completions__clipped_ratio=1.0),
    "cut_off": with_fault(completions__clipped_ratio=0.7, completions__mean_length=8.0),
    "too_long": with_fault(completions__clipped_ratio=0.4, completions__mean_length=100.0),
    "too_hard": with_fault(frac_reward_zero_std=1.0, reward=0.05),
    "no_variance": with_fault(frac_reward_zero_std=0.95, reward=3.0),
    "too_easy": with_fault(frac_reward_zero_std=0.95, reward=4.0),
    "still": with_fault(adapter__norm=0.0),
    "collapsed": with_fault(entropy=0.001),
    "fallen": with_fault(60, reward=0.2),
    "hacked": [*looks(s10=0.6), *healthy(30), *looks(s30=0.2)],
}


@pytest.mark.parametrize(("kind", "history"), FAULTS.items(), ids=FAULTS)
def test_a_fault_is_named_alone(kind, history):
    assert kinds(history) == {kind}
    (advice,) = find_alarms(history, load_recipe())
    assert advice.sentence.endswith((".", "?"))
    assert advice.step == max(line["step"] for line in history if "reward" in line)


def test_kl_counts_where_there_is_a_kl_term():
    lines = with_fault(kl=9.0)
    assert kinds(lines) == set()
    assert kinds(lines, beta=0.04) == {"far_from_base"}


def test_a_slightly_lower_held_out_rate_may_be_chance():
    assert kinds([*looks(s10=0.6), *healthy(30), *looks(s30=0.5)]) == set()


def test_hacking_is_shown_by_a_completion():
    log = pandas.DataFrame(
        {
            "step": 1,
            "prompt": ["p"] * 3,
            "answer": ["24"] * 3,
            "completion": ["<reasoning>\nx\n</reasoning>\n<answer>\n24\n</answer>", "worst", "\x1b[31mbest"],
            "advantage": [2.0, -1.0, 1.0],
        }
    )
    (advice,) = find_alarms(FAULTS["hacked"], load_recipe(), log)
    assert advice.sentence.endswith(r"(advantage +1.0, gold '24'): '\x1b[31mbest'.")


def test_the_same_question_over_and_over():
    log = pandas.DataFrame({"step": 1, "prompt": ["a", "b"] * 160, "completion": range(320)})
    (advice,) = find_alarms(healthy(WINDOW), load_recipe(), log)
    assert advice.kind == "repeated"
    assert "40 groups asked only 2 different questions" in advice.sentence


def test_a_reward_that_pays_anything(monkeypatch):
    monkeypatch.setattr("r1nb.rewards.registry.REWARDS", REWARDS | {})  # to be forgotten

    @reward(high=1.0)
    def generous_reward_func(text: str, answer: str) -> float:
        return 1.0

    monkeypatch.setitem(REWARDS, "generous_reward_func", generous_reward_func)
    rewards = {"strict_format_reward_func": 1.0, "generous_reward_func": 1.0}
    lines = with_fault(rewards__strict_format_reward_func__mean=0.5, rewards__generous_reward_func__mean=1.0)
    for line in lines:  # a perfect format is no fault
        line |= lines[-1] | {"step": line["step"], "reward": 1.5, "adapter/norm": line["adapter/norm"]}
    assert kinds(lines, rewards=rewards) == {"always_generous_reward_func"}


def test_a_single_overflow_is_the_fp16_scalers_business():
    for key in ("loss", "grad_norm"):
        assert kinds(with_fault(last=2, **{key: float("inf")})) == set()
        assert kinds(with_fault(last=3, **{key: float("inf")})) == {"not_finite"}


def test_a_step_that_could_not_be_judged_counts_nowhere():
    lines = healthy(40)
    for line in lines[10:40:4]:
        line |= {"reward": None, "frac_reward_zero_std": None}
    assert kinds(lines) == set()


def test_one_spike_of_kl_is_no_runaway():
    lines = with_fault(30, last=30, kl=0.05)
    lines[-1]["kl"] = 60.0
    assert kinds(lines, beta=0.04) == set()


def test_the_same_batch_used_twice_is_no_duplicate():
    log = pandas.DataFrame(
        [
            {"step": step, "prompt": f"{step // 5} {i % 8}", "completion": f"{i}"}
            for step in range(10)
            for i in range(64)
        ]
    )
    assert find_alarms(healthy(WINDOW), load_recipe(num_iterations=5, save_steps=15), log) == []


SMALL = {"per_device_train_batch_size": 8, "learning_rate": 5e-6}  # one group a step, as with an 8B model


def one_group_a_step(seed: int, chance) -> list[dict]:
    """Correctness alone, eight completions a step, each right with chance(step)."""
    draw, lines = random.Random(seed), []
    for step in range(1, 251):
        right = [draw.random() < chance(step) for _ in range(8)]
        lines.append(
            {"step": step, "reward": 2 * sum(right) / 8, "entropy": draw.uniform(0.2, 0.5), "loss": 0.01,
             "frac_reward_zero_std": float(len(set(right)) == 1), "adapter/norm": step / 1e4,
             "completions/mean_length": draw.uniform(100, 300), "completions/clipped_ratio": 0.0,
             "rewards/correctness_reward_func/mean": 2 * sum(right) / 8}
        )  # fmt: skip
    return lines


@pytest.mark.parametrize(
    "chance", [lambda step: 0.36, lambda step: 0.3 + step / 500], ids=["level", "rising"]
)
def test_noise_of_small_steps_is_no_fault(chance):
    recipe = load_recipe(rewards={"correctness_reward_func": 1.0}, **SMALL)
    assert window(recipe) == 80
    for seed in range(10):
        lines = one_group_a_step(seed, chance)
        for n in range(1, len(lines), 3):
            assert find_alarms(lines[:n], recipe) == []


def test_a_fault_is_found_in_small_steps_too():
    recipe = load_recipe(rewards={"correctness_reward_func": 1.0}, **SMALL)
    lines = one_group_a_step(0, lambda step: 0.8 if step < 120 else 0.05)
    assert [advice.kind for advice in find_alarms(lines, recipe)] == ["fallen"]


def test_the_way_back_is_a_checkpoint_that_is_kept():
    recipe = load_recipe()
    (advice,) = find_alarms(FAULTS["not_finite"], recipe, checkpoints=[8, 16, 20])
    assert "go back to checkpoint-16" in advice.sentence
    (advice,) = find_alarms(FAULTS["not_finite"], recipe)
    assert "start again" in advice.sentence


def test_a_penalty_may_stay_silent():
    lines = healthy(2 * WINDOW)
    rewards = {"correctness_reward_func": 1.0, "overlong_reward_func": 1.0}
    assert kinds(lines, rewards=rewards) == set()
