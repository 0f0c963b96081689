"""R1's stages, as TRL's trainers: GRPO as notebook 03 builds it, and the short SFT start."""

from r1nb.data import solution_as_xml
from r1nb.errors import UserError


def grpo_trainer(policy, rows, recipe, output_dir, callbacks=()):
    """The trl.GRPOTrainer of a recipe, silent: what notebook 03 writes out."""
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=recipe.reward_funcs(policy.end_tokens),
        args=recipe.grpo_config(output_dir),
        train_dataset=rows,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def sft_start(policy, rows, recipe, output_dir) -> float:
    """Teach the adapter the format from the rows' own solutions, with TRL's SFTTrainer.

    Returns the mean loss over the run. Raises UserError if no row has a solution.
    """
    rows = rows.filter(lambda solution: solution != "", input_columns="solution")
    if not len(rows):
        raise UserError(
            "The dataset shows no solutions to start from: take the sft section out of the recipe."
        )

    def as_example(row: dict) -> dict:
        return {"completion": [{"role": "assistant", "content": solution_as_xml(row, recipe.data.layout)}]}

    return sft(policy, rows.map(as_example).select_columns(["prompt", "completion"]), recipe, output_dir)


def sft(policy, examples, recipe, output_dir) -> float:
    """Train the adapter on examples {prompt, completion}, both chat messages, as the `sft` section says.

    The loss is on the completions alone. Returns its mean over the run.
    """
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=policy.model,
        args=SFTConfig(output_dir=str(output_dir), disable_tqdm=True, **recipe.sft),
        train_dataset=examples,
        processing_class=policy.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer.train().training_loss
