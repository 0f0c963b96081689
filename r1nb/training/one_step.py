"""Take single optimizer steps on a group of completions whose rewards are given, and take them back."""

import contextlib
import copy
import io
import tempfile
from dataclasses import dataclass

from r1nb.errors import UserError
from r1nb.machine.configs import grpo_config
from r1nb.rewards.grading import Graded
from r1nb.rewards.registry import LARGEST
from r1nb.text.prompts import format_prompt
from r1nb.training.loss import group_advantages

# One step at the peak learning rate, on one group, which leaves no files.
ONE_STEP = {"max_steps": 1, "lr_scheduler_type": "constant", "gradient_accumulation_steps": 1,
            "steps_per_generation": None, "generation_batch_size": None, "num_iterations": 1,
            "multi_objective_aggregation": "sum_then_normalize", "log_completions": False,
            "save_strategy": "no", "report_to": "none"}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A prompt (chat messages), the tokens of its completions, and the temperature that sampled them."""

    prompt: list[dict]
    completion_ids: list[list[int]]  # each with its end token, unless it was cut off
    temperature: float


def group_of(policy, prompt: list[dict], graded: list[Graded], temperature: float) -> Group:
    """The Group of graded completions to one prompt; each ends with the tokenizer's end token."""
    end = policy.tokenizer.eos_token_id
    return Group(prompt, [[*g.ids, *[end] * (not g.cut)] for g in graded], temperature)


def advantages_of(rewards: list[float], recipe) -> list[float]:
    """The advantages that the recipe gives the total rewards of a group."""
    import torch

    scale = recipe.grpo.get("scale_rewards", "group") not in ("none", False)
    return group_advantages(torch.tensor(rewards), scale).tolist()


class GroupSteps:
    """Optimizer steps of a recipe's trainer on one group at a time, at the recipe's peak learning rate.

    A step is `train()` of SharedPromptTrainer with the recipe's settings: it gets the tokens of the group in
    place of new samples, and total rewards in place of reward functions. The optimizer keeps its momentum
    from step to step. Raises UserError if the policy has nothing to train, or if the engine is Unsloth.
    """

    def __init__(self, policy, recipe):
        from datasets import Dataset
        from transformers import PrinterCallback

        from r1nb.training.trainer import SharedPromptTrainer

        if recipe.model.engine == "unsloth" or recipe.grpo.get("use_vllm"):
            raise UserError("A single step needs engine='transformers' and use_vllm=False: load it so.")
        if policy.has_adapter and recipe.lora:
            policy.model.set_adapter(policy.model.active_adapter)  # that of load_trained is not trainable
        self.weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
        if not self.weights or (recipe.lora and not policy.has_adapter):
            raise UserError(
                "This policy has no adapter to train: load a trained one with load_trained, or call "
                "attach_lora(policy, recipe) first."
            )
        if "ref" in getattr(policy.model, "peft_config", ()):  # of an earlier trainer with a KL term
            policy.model.delete_adapter("ref")  # TRL copies the adapter as it is now
        changes = ONE_STEP | {"per_device_train_batch_size": recipe.group_size}
        recipe = recipe.model_copy(update={"grpo": recipe.grpo | changes, "rewards": {"given": 1.0}})
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer = SharedPromptTrainer(
                model=policy.model,
                processing_class=policy.tokenizer,
                reward_funcs=lambda completions, given, **_: given,
                args=grpo_config(recipe, tempfile.gettempdir()),
                train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": ""}]}]),
            )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.create_optimizer()
        self.policy, self.size, self.seed = policy, recipe.group_size, recipe.grpo["seed"]
        self._before = []  # weights and optimizer before each step

    @property
    def taken(self) -> int:
        """The number of steps that `undo` can take back: the steps so far, without those that are undone."""
        return len(self._before)

    def step(self, group: Group, rewards: list[float]) -> None:
        """Take one step on a group. Raises UserError unless each of its completions has a finite reward.

        The group must have as many completions as the recipe's num_generations.
        """
        from datasets import Dataset
        from transformers import set_seed

        if not len(rewards) == len(group.completion_ids) == self.size:
            raise UserError(
                f"{len(rewards)} rewards were given: a group of this recipe has {self.size} rewards."
            )
        if wrong := [score for score in rewards if not abs(score) <= LARGEST]:
            raise UserError(f"A reward is {wrong[0]}: give a number of at most {LARGEST:g}.")

        def rollout(prompts, trainer) -> dict:
            set_seed(self.seed)  # TRL shuffles the rows: the same step rounds in the same way
            return {
                "prompt_ids": [self._prompt_ids(group)] * len(prompts),
                "completion_ids": group.completion_ids,
                "logprobs": None,
                "given": rewards,
            }

        before = self._state()
        self.trainer.rollout_func = rollout
        self.trainer.train_dataset = Dataset.from_list([{"prompt": group.prompt}])
        self.trainer.temperature = group.temperature
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.trainer.train()
        except BaseException:
            self._restore(before)
            raise
        self._before.append(before)

    def undo(self) -> None:
        """Restore the weights and the optimizer as they were before the last step that is not undone."""
        if not self._before:
            raise UserError("There is no step to undo.")
        self._restore(self._before.pop())

    def log_probabilities(self, group: Group) -> list[float]:
        """The log-probability (nats) of each whole completion of a group, at its temperature."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows = [torch.tensor(ids) for ids in group.completion_ids]
        ends = pad_sequence(rows, batch_first=True, padding_value=self.policy.tokenizer.pad_token_id)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        start = torch.tensor([self._prompt_ids(group)] * len(rows))
        model, self.trainer.temperature = self.policy.model, group.temperature
        ids, seen = torch.cat([start, ends], 1), torch.cat([torch.ones_like(start), mask], 1)
        training = model.training
        model.eval()
        with torch.no_grad():
            logps, *_ = self.trainer._get_per_token_logps_and_entropies(
                model, ids.to(model.device), seen.to(model.device), ends.size(1)
            )
        model.train(training)
        return (logps.cpu() * mask).sum(1).tolist()

    def _prompt_ids(self, group: Group) -> list[int]:
        text = format_prompt(self.policy.tokenizer, group.prompt)
        return self.policy.tokenizer(text, add_special_tokens=False).input_ids

    def _state(self) -> tuple:
        weights = [weight.detach().clone() for weight in self.weights]
        return weights, copy.deepcopy(self.trainer.optimizer.state_dict())

    def _restore(self, state: tuple) -> None:
        weights, optimizer = state
        for weight, before in zip(self.weights, weights, strict=True):
            weight.data.copy_(before)
        self.trainer.optimizer.load_state_dict(optimizer)
