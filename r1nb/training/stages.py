"""The stages of R1 with TRL's trainers, GRPO and SFT, and the end of each: evaluation and proof."""

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate_tests
from r1nb.evaluation.proof import Proof, prove
from r1nb.machine.configs import grpo_config, sft_config
from r1nb.machine.out_of_memory import out_of_memory_in_words, remedy_for
from r1nb.processes import is_main, whole_weights
from r1nb.text.prompts import Layout


def grpo_trainer(policy, rows, recipe, output_dir, callbacks=(), trainer_class=None):
    """The GRPO trainer of a recipe, without TRL's progress lines: the one that notebook 03 builds.

    `trainer_class` is trl.GRPOTrainer or one like it; SharedPromptTrainer, if none is given.
    """
    from transformers import PrinterCallback

    from r1nb.training.trainer import SharedPromptTrainer

    trainer = (trainer_class or SharedPromptTrainer)(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=recipe.reward_funcs(policy.end_tokens),
        args=grpo_config(recipe, output_dir),
        train_dataset=rows,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def solution_examples(rows, layout: Layout):
    """{prompt, completion} of the rows' own solutions, for SFT; raises UserError if no row has one."""
    rows = rows.filter(lambda solution: solution != "", input_columns="solution")
    if not len(rows):
        raise UserError("The dataset shows no solutions to learn from: leave out the section sft.")

    def as_example(row: dict) -> dict:
        reply = layout.format_reply(row["solution"], row["answer"])
        return {"completion": [{"role": "assistant", "content": reply}]}

    return rows.map(as_example).select_columns(["prompt", "completion"])


def sft(policy, examples, recipe, output_dir, callbacks=()) -> float:
    """Train the adapter on examples {prompt, completion}, both chat messages, as the `sft` section says.

    The loss is on the completions alone. Returns its mean over the run.
    """
    from transformers import PrinterCallback
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=policy.model,
        args=sft_config(recipe, output_dir),
        train_dataset=examples,
        processing_class=policy.tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    with out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        return trainer.train().training_loss


def finish(run, policy, tests: dict, recipe, base: dict) -> Proof | None:
    """Accuracy on the tests, the adapter saved, and proven in a fresh process: the run is finished.

    `base` is what evaluate_tests gave before training, {split: graded}. Of several processes the main one
    saves and proves; the others return None.
    """
    after = evaluate_tests(run, "after", policy, tests, recipe)
    with whole_weights(policy.model.parameters()):
        if is_main():
            policy.save_trained(run)
    if not is_main():
        return None
    split, rows = next(iter(tests.items()))
    return prove(run, rows, trained=after[split], base=base[split])
