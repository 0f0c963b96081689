"""A single step by hand is the trainer's own step on the same group, and it can be taken back exactly."""

from dataclasses import replace

import pytest
import torch
from transformers import set_seed

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import sample_groups
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import format_prompt
from r1nb.training.one_step import Group, GroupSteps, advantages_of, group_of
from r1nb.training.stages import grpo_trainer
from r1nb.training.trainer import SharedPromptTrainer


class Spy(SharedPromptTrainer):
    """It keeps the tokens that it samples and the advantages that it gives."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        self.prompt_ids, (self.sampled, logps) = (
            prompt_ids,
            super()._generate_single_turn(prompt_ids, *args, **kwargs),
        )
        return self.sampled, logps

    def _calculate_rewards(self, *args, **kwargs):
        self.scores = super()._calculate_rewards(*args, **kwargs)
        set_seed(self.args.seed)  # the rows are shuffled next, as in a step by hand
        return self.scores


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(
        "tiny-five-rewards", seed=9, max_steps=1, per_device_train_batch_size=8, lr_scheduler_type="constant",
        save_strategy="no", torch_threads=1, runs_dir=str(tmp_path / "runs"),
    )  # fmt: skip


def fresh(recipe):
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    return policy


def trained(policy) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in policy.model.parameters() if weight.requires_grad]


def same(some, others) -> bool:
    return all(a.equal(b) for a, b in zip(some, others, strict=True))


def test_a_step_by_hand_gives_the_weights_of_the_trainers_own_step_bit_for_bit(recipe, tmp_path):
    row = load_rows("bundled", "train").select([24])  # with seed 9 its rewards differ
    theirs = fresh(recipe)
    trainer = grpo_trainer(theirs, row, recipe, tmp_path / "trainer", trainer_class=Spy)
    trainer.train()
    assert [log["learning_rate"] for log in trainer.state.log_history if "loss" in log] == [2e-3]
    rewards = (trainer.scores @ torch.tensor(list(recipe.rewards.values()))).tolist()
    assert len(set(rewards)) > 1

    ours = fresh(recipe)
    begin = trained(ours)
    steps = GroupSteps(ours, recipe)
    group = Group(row[0]["prompt"], trainer.sampled, 1.0)
    assert [steps._prompt_ids(group)] * 8 == trainer.prompt_ids
    steps.step(group, rewards)
    assert same(trained(ours), trained(theirs))
    assert not same(trained(ours), begin)
    assert list(steps.trainer._logs["advantages"]) == list(trainer._logs["advantages"])
    assert advantages_of(rewards, recipe) == pytest.approx(list(trainer._logs["advantages"]), abs=1e-6)


def sampled(recipe):
    """Return (policy, its GroupSteps, a group that it sampled, rewards that differ)."""
    policy, row = fresh(recipe), load_rows("bundled", "train").select([24])
    (graded,) = sample_groups(policy, row, recipe.judge(), recipe.sampling, 8, 8)
    group = group_of(policy, row[0]["prompt"], graded, 1.0)
    return policy, GroupSteps(policy, recipe), group, [float(i) for i in range(8)]


def test_undo_gives_back_the_weights_and_the_optimizer_bit_for_bit(recipe):
    policy, steps, group, rewards = sampled(recipe)
    seen, chances = [trained(policy)], [steps.log_probabilities(group)]
    for scores in (rewards, rewards[::-1]):
        steps.step(group, scores)
        seen.append(trained(policy))
        chances.append(steps.log_probabilities(group))
    assert steps.taken == 2
    for i in (1, 0):
        steps.undo()
        assert same(trained(policy), seen[i])
        assert steps.log_probabilities(group) == chances[i]
    assert steps.taken == 0
    for scores, weights in zip((rewards, rewards[::-1]), seen[1:], strict=True):
        steps.step(group, scores)  # also the momentum is the old one
        assert same(trained(policy), weights)


def test_a_rewarded_completion_becomes_likelier_and_equal_rewards_change_nothing(recipe):
    policy, steps, group, _ = sampled(recipe)
    begin, before = trained(policy), steps.log_probabilities(group)
    steps.step(group, [1.0] * 8)
    assert same(trained(policy), begin)
    longest = max(range(8), key=lambda i: len(group.completion_ids[i]))
    steps.step(group, [float(i == longest) for i in range(8)])
    assert steps.log_probabilities(group)[longest] > before[longest] + 0.1


def test_the_probabilities_are_those_of_the_plain_model(recipe):
    policy, steps, group, _ = sampled(recipe)
    steps.step(group, [float(i) for i in range(8)])
    group = replace(group, temperature=0.7)
    found = steps.log_probabilities(group)
    start = policy.tokenizer(
        format_prompt(policy.tokenizer, group.prompt), add_special_tokens=False
    ).input_ids
    for total, ids in zip(found, group.completion_ids, strict=True):
        with torch.no_grad():
            logits = policy.model.eval()(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1] / 0.7
        each = torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)]
        assert total == pytest.approx(float(each.sum()), abs=1e-3)


def test_what_cannot_be_stepped_is_refused_in_a_sentence_and_changes_nothing(recipe):
    policy, steps, group, _ = sampled(recipe)
    begin = trained(policy)
    for rewards, words in (([1.0] * 7, "8 rewards"), ([0.0] * 7 + [float("nan")], "nan")):
        with pytest.raises(UserError, match=words):
            steps.step(group, rewards)
    assert same(trained(policy), begin)
    assert steps.taken == 0
    with pytest.raises(UserError, match="attach_lora"):
        GroupSteps(load_policy(recipe, to_train=False), recipe)
    with pytest.raises(UserError, match="engine"):
        GroupSteps(policy, recipe.model_copy(update={"grpo": recipe.grpo | {"use_vllm": True}}))


def test_a_recipe_with_a_kl_term_and_several_iterations_takes_single_steps_too(recipe):
    changes = {"beta": 0.04, "num_iterations": 2, "gradient_accumulation_steps": 2}
    recipe = recipe.model_copy(update={"grpo": recipe.grpo | changes})
    policy, _, group, rewards = sampled(recipe)
    begin = trained(policy)
    again = GroupSteps(policy, recipe)  # as when a cell is run twice
    again.step(group, rewards)
    before = again.log_probabilities(group)
    again.step(group, rewards[::-1])  # not the first rewards again, as in an iteration
    assert again.log_probabilities(group)[0] > before[0]
    again.undo()
    again.undo()
    assert same(trained(policy), begin)
