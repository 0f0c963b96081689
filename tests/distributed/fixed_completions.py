"""Take one optimizer step on given completions: python fixed_completions.py LOSS_TYPE OUT PER_DEVICE

Writes the loss and each gradient as the optimizer gets it, after the processes have exchanged it.
"""

import sys

import torch
from transformers import TrainerCallback

from r1nb.policy.loading import attach_lora, load_policy
from r1nb.processes import is_main, leave
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import format_prompt
from r1nb.training.stages import grpo_trainer

TEXTS = [f"<reasoning>\n{i}+1={i + 1}\n</reasoning>\n<answer>\n{i}\n</answer>\n" for i in range(4)]
TEXTS += [f"The answer is {i}." for i in range(4)]


class Gradients(TrainerCallback):
    def __init__(self, out: str):
        self.out, self.found = out, {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                self.found[name.removeprefix("module.")] = weight.grad.clone()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if is_main() and "loss" in logs:
            figures = {key: logs[key] for key in ("loss", "reward", "grad_norm")}
            torch.save({"gradients": self.found, **figures}, self.out)


def main(loss_type: str, out: str, per_device: str) -> None:
    recipe = load_recipe(
        "tiny-five-rewards", max_steps=1, per_device_train_batch_size=int(per_device), loss_type=loss_type,
        max_grad_norm=1e9, save_strategy="no", torch_threads=1, runs_dir=f"{out}-runs",
    )  # fmt: skip
    policy = load_policy(recipe)
    policy.model.double()  # so that the order of a sum hardly matters
    attach_lora(policy, recipe)
    torch.manual_seed(0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:  # with B = 0, A would get no gradient
            weight.data += 0.03 * torch.randn_like(weight)

    def rollout(prompts, trainer):
        texts = [TEXTS[i % recipe.group_size] for i in range(len(prompts))]
        ends = [text + policy.tokenizer.eos_token for text in texts]
        starts = [format_prompt(policy.tokenizer, messages) for messages in prompts]
        return {
            "prompt_ids": policy.tokenizer(starts, add_special_tokens=False).input_ids,
            "completion_ids": policy.tokenizer(ends, add_special_tokens=False).input_ids,
            "logprobs": None,
        }

    # Prompts of one length: padding would shift positions, whose cosines transformers computes in 32 bits.
    rows = load_rows("bundled", "train")
    lengths = [
        len(policy.tokenizer(format_prompt(policy.tokenizer, each)).input_ids) for each in rows["prompt"]
    ]
    rows = rows.select([i for i, length in enumerate(lengths) if length == lengths[0]])
    trainer = grpo_trainer(policy, rows, recipe, f"{out}-trainer", [Gradients(out)])
    trainer.rollout_func = rollout
    trainer.train()
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
