"""Train with a sampler for which the adapter is off: python sampled_by_base.py RUNS_DIR"""

import torch
from accelerate import PartialState

from r1nb.errors import run_main
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.processes import from_main
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_rows
from r1nb.training.resume import begin_run, resumable
from r1nb.training.stages import grpo_trainer


def main(runs_dir: str) -> None:
    recipe = load_recipe(
        "tiny-five-rewards", max_steps=25, per_device_train_batch_size=8, max_completion_length=48,
        save_strategy="no", torch_threads=1, runs_dir=runs_dir,
    )  # fmt: skip
    PartialState(cpu=True)  # connects the processes
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    torch.manual_seed(0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    run = from_main(lambda: begin_run(recipe))
    trainer = grpo_trainer(policy, load_rows("bundled", "train"), recipe, run.folder)
    sample = trainer._generate_single_turn

    def broken(*args, **kwargs):
        with policy.model.disable_adapter():
            return sample(*args, **kwargs)

    trainer._generate_single_turn = broken
    with resumable(trainer, run):
        trainer.train()


if __name__ == "__main__":
    run_main(main)
