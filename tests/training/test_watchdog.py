"""The watchdog names each fault in the history once, and raises no alarm in healthy runs."""

import math
import random

import pandas
import pytest
from trl import GRPOTrainer

from r1nb.machine.configs import grpo_config
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards import registry
from r1nb.rewards.registry import reward
from r1nb.tasks.rows import load_splits
from r1nb.training.callbacks import Recorder
from r1nb.training.resume import new_run
from r1nb.training.watchdog import find_alarms, last_sampled, window

WINDOW = 10  # lines of the history, for the 8 groups per step of tiny-cpu

FIVE = ("correctness", "int", "strict_format", "soft_format", "xmlcount")


def healthy(n: int) -> list[dict]:
    """Return the history of a tiny-cpu run: means over ten steps, from seed 1."""
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
    """Return a healthy history in which the given figures of the last lines are replaced."""
    lines = healthy(n)
    for line in lines[-last:]:
        line.update({key.replace("__", "/"): value for key, value in figures.items()})
    return lines


def alarms(history, log=None, checkpoints=(), **settings):
    recipe = load_recipe("tiny-five-rewards", **settings)
    return find_alarms(history, recipe.judge(), grpo_config(recipe, "unused"), log, checkpoints)


def kinds(history, **settings):
    return {alarm.kind for alarm in alarms(history, **settings)}


def test_a_healthy_run_raises_no_alarm():
    lines, recipe = healthy(64), load_recipe("tiny-five-rewards")
    args = grpo_config(recipe, "unused")
    for n in range(len(lines) + 1):
        assert find_alarms(lines[:n], recipe.judge(), args) == []


def validations(**rates):
    """Return lines of validations on 60 problems; s10=0.6 means strict accuracy 0.6 after step 10."""
    return [{"step": int(s[1:]), "validation/strict": rate, "validation/n": 60} for s, rate in rates.items()]


SILENT = {f"rewards__{name}_reward_func__mean": 0.0 for name in FIVE}
UNLIKE = {"sampling__sampling_logp_difference__mean": 0.08, "sampling__sampling_logp_difference__max": 1.0}
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
    "unlike_sampler": with_fault(**UNLIKE),
    "hacked": [*validations(s10=0.6), *healthy(30), *validations(s30=0.2)],
}


@pytest.mark.parametrize(("kind", "history"), FAULTS.items(), ids=FAULTS)
def test_a_fault_raises_its_alarm_and_no_other(kind, history):
    assert kinds(history) == {kind}
    (alarm,) = alarms(history)
    assert alarm.sentence.endswith((".", "?"))
    assert alarm.step == max(line["step"] for line in history if "reward" in line)


def test_kl_raises_an_alarm_only_with_a_kl_term():
    lines = with_fault(kl=9.0)
    assert kinds(lines) == set()
    assert kinds(lines, beta=0.04) == {"far_from_base"}


def test_a_sampler_that_leaves_out_tokens_or_rounds_to_16_bits_raises_no_alarm():
    lines = with_fault(**UNLIKE)
    assert kinds(lines, top_p=0.9) == set()
    assert kinds([line | {"entropy": 2.0} for line in lines]) == set()  # 0.08 of 2 nats is rounding
    rounding = UNLIKE | {"sampling__sampling_logp_difference__mean": 0.03}  # vLLM's in bfloat16
    assert kinds(with_fault(**rounding, entropy=0.3)) == set()
    assert kinds(with_fault(last=4, **UNLIKE)) == set()


def test_a_slightly_lower_validation_rate_may_be_chance():
    assert kinds([*validations(s10=0.6), *healthy(30), *validations(s30=0.5)]) == set()


def test_the_alarm_about_hacking_quotes_a_completion():
    log = pandas.DataFrame(
        {
            "step": 1,
            "prompt": ["p"] * 3,
            "answer": ["24"] * 3,
            "completion": ["<reasoning>\nx\n</reasoning>\n<answer>\n24\n</answer>", "worst", "\x1b[31mbest"],
            "advantage": [2.0, -1.0, 1.0],
        }
    )
    (alarm,) = alarms(FAULTS["hacked"], log)
    assert alarm.sentence.endswith(r"(advantage +1.0, gold '24'): '\x1b[31mbest'.")


def test_few_different_questions_raise_an_alarm():
    log = pandas.DataFrame({"step": 1, "prompt": ["a", "b"] * 160, "completion": range(320)})
    (alarm,) = alarms(healthy(WINDOW), log)
    assert alarm.kind == "repeated"
    assert "40 groups asked only 2 different questions" in alarm.sentence


def test_a_reward_that_pays_for_everything_raises_an_alarm(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", dict(registry._OWN))  # restored after the test

    @reward(high=1.0)
    def generous_reward_func(text: str, answer: str) -> float:
        return 1.0

    rewards = {"strict_format_reward_func": 1.0, "generous_reward_func": 1.0}
    lines = with_fault(rewards__strict_format_reward_func__mean=0.5, rewards__generous_reward_func__mean=1.0)
    for line in lines:  # a constant format reward is no fault
        line |= lines[-1] | {"step": line["step"], "reward": 1.5, "adapter/norm": line["adapter/norm"]}
    assert kinds(lines, rewards=rewards) == {"always_generous_reward_func"}


def test_a_short_overflow_which_the_fp16_scaler_handles_raises_no_alarm():
    for key in ("loss", "grad_norm"):
        assert kinds(with_fault(last=2, **{key: float("inf")})) == set()
        assert kinds(with_fault(last=3, **{key: float("inf")})) == {"not_finite"}


def test_steps_that_were_not_judged_are_ignored():
    lines = healthy(40)
    for line in lines[10:40:4]:
        line |= {"reward": None, "frac_reward_zero_std": None}
    assert kinds(lines) == set()


def test_the_sampler_is_compared_without_a_logged_entropy():
    """Unsloth logs none on a GPU."""
    lines = with_fault(**UNLIKE)
    for line in lines:
        line["sampling/entropy"] = line.pop("entropy")
    assert kinds(lines) == {"unlike_sampler"}
    for line in lines:
        line["sampling/entropy"] = 2.0
    assert kinds(lines) == set()


def test_one_spike_of_kl_raises_no_alarm():
    lines = with_fault(30, last=30, kl=0.05)
    lines[-1]["kl"] = 60.0
    assert kinds(lines, beta=0.04) == set()


def test_a_batch_used_in_several_steps_does_not_count_as_repeated_questions():
    log = pandas.DataFrame(
        [
            {"step": step, "prompt": f"{step // 5} {i % 8}", "completion": f"{i}"}
            for step in range(10)
            for i in range(64)
        ]
    )
    assert alarms(healthy(WINDOW), log, num_iterations=5, save_steps=15) == []


SMALL = {"per_device_train_batch_size": 8, "learning_rate": 5e-6}  # one group per step, as with an 8B model


def one_group_a_step(seed: int, chance) -> list[dict]:
    """Return the history of a run with correctness alone: 8 completions per step, right with chance(step)."""
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
def test_noise_of_small_steps_raises_no_alarm(chance):
    recipe = load_recipe(rewards={"correctness_reward_func": 1.0}, **SMALL)
    judge, args = recipe.judge(), grpo_config(recipe, "unused")
    for seed in range(10):
        lines = one_group_a_step(seed, chance)
        assert window(lines, args) == 80
        for n in range(1, len(lines), 3):
            assert find_alarms(lines[:n], judge, args) == []


def test_a_fault_is_found_in_small_steps_too():
    lines = one_group_a_step(0, lambda step: 0.8 if step < 120 else 0.05)
    assert kinds(lines, rewards={"correctness_reward_func": 1.0}, **SMALL) == {"fallen"}


def test_the_alarm_names_a_checkpoint_from_before_the_fault():
    (alarm,) = alarms(FAULTS["not_finite"], checkpoints=[8, 16, 20])
    assert "go back to checkpoint-16" in alarm.sentence
    (alarm,) = alarms(FAULTS["not_finite"])
    assert "start again" in alarm.sentence


def test_a_penalty_that_never_applies_raises_no_alarm():
    lines = healthy(2 * WINDOW)
    rewards = {"correctness_reward_func": 1.0, "overlong_reward_func": 1.0}
    assert kinds(lines, rewards=rewards) == set()


class Counting(GRPOTrainer):
    """A trainer that records how many completions were sampled for each logged line."""

    def __init__(self, **arguments):
        self.sampled, self.lines = 0, []
        super().__init__(**arguments)

    def _generate_and_score_completions(self, inputs):
        self.sampled += len(inputs)
        return super()._generate_and_score_completions(inputs)

    def log(self, logs, *arguments):
        if "loss" in logs and self.sampled:
            self.lines.append(self.sampled)
            self.sampled = 0
        super().log(logs, *arguments)


@pytest.fixture(scope="module")
def policy():
    policy = load_policy(load_recipe())
    attach_lora(policy, load_recipe())
    return policy


@pytest.mark.parametrize(
    "settings",
    [
        {"logging_steps": 1},
        {"logging_steps": None, "max_steps": 30},  # the default of TRL: 10
        {"logging_steps": 0.25},  # a share of max_steps
        {"logging_strategy": "epoch", "max_steps": 24},
        {"logging_steps": 2, "gradient_accumulation_steps": 2},
        {"logging_steps": 1, "steps_per_generation": 2},
        {"logging_steps": 1, "num_iterations": 2},
        {"logging_steps": 4, "num_iterations": 2, "max_steps": 16},
        {"logging_steps": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 2},
    ],
    ids=str,
)
def test_a_window_has_the_number_of_lines_in_which_its_groups_were_sampled(policy, tiny_recipe, settings):
    """The trainer of TRL shows how many groups one line of the history stands for."""
    tiny_recipe.grpo |= {"max_steps": 8, "per_device_train_batch_size": 8, "max_completion_length": 2,
                         "num_generations": 4, "save_strategy": "no"} | settings  # fmt: skip
    if tiny_recipe.grpo["logging_steps"] is None:
        del tiny_recipe.grpo["logging_steps"]
    run = new_run(tiny_recipe)
    args = grpo_config(tiny_recipe, run.folder)
    rows = load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)[0].select(range(16))
    trainer = Counting(
        model=policy.model, processing_class=policy.tokenizer, reward_funcs=tiny_recipe.reward_funcs(),
        args=args, train_dataset=rows, callbacks=[Recorder(run)],
    )  # fmt: skip
    trainer.train()
    lines = [line for line in run.history() if "reward" in line]
    assert len(lines) == len(trainer.lines) >= 3
    groups_a_line = sum(trainer.lines) / len(trainer.lines) / 4
    assert window(lines, args, 120) == math.ceil(120 / groups_a_line)
    steps = last_sampled(run.history(), args)
    assert steps == [line["step"] for line in lines]
    assert len(run.completions(*steps)) == len(lines) * args.generation_batch_size


def test_without_a_single_logged_line_there_is_no_alarm(tiny_recipe):
    """This is the history if logging_strategy=no."""
    assert find_alarms([], tiny_recipe.judge(), grpo_config(tiny_recipe, "unused")) == []


def test_if_a_line_stands_for_ten_steps_a_window_has_fewer_lines(tiny_recipe):
    """Ten steps per line is TRL's default; a window is then 3 lines of 80 groups, not 10 lines."""
    del tiny_recipe.grpo["logging_steps"]
    tiny_recipe.grpo["per_device_train_batch_size"] = 64
    args = grpo_config(tiny_recipe, "unused")
    lines = with_fault(6, last=3, completions__clipped_ratio=0.7)
    for line in lines:
        line["step"] *= 10
    (alarm,) = find_alarms(lines, tiny_recipe.judge(), args)
    assert (alarm.kind, alarm.step) == ("cut_off", 60)


def test_a_judge_that_fails_raises_an_alarm_also_if_batches_are_used_twice(tiny_recipe):
    """Every other line of the history then has no key "reward"."""
    tiny_recipe.grpo["num_iterations"] = 2
    lines = healthy(6)
    for line in lines:
        line["reward"] = None
    for line in lines[1::2]:
        del line["reward"]
    (alarm,) = find_alarms(lines, tiny_recipe.judge(), grpo_config(tiny_recipe, "unused"))
    assert alarm.kind == "unjudged"
    assert "of the last 5 steps" in alarm.sentence
