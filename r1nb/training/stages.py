"""R1's training stages, GRPO and SFT, with TRL's trainers, and the end of a run: evaluation and proof."""

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate_tests
from r1nb.evaluation.proof import Proof, prove
from r1nb.machine.configs import grpo_config, sft_config
from r1nb.machine.out_of_memory import out_of_memory_in_words, remedy_for
from r1nb.processes import is_main, whole_weights
from r1nb.text.prompts import Layout, completion_text, format_prompt


def grpo_trainer(policy, rows, recipe, output_dir, callbacks=(), trainer_class=None):
    """The GRPO trainer of a recipe, as notebook 03 builds it; it does not print its logs.

    It gets the prompts and the columns that the rewards read: TRL would give a meaning to some of the others.
    `trainer_class` is trl.GRPOTrainer or a class with the same arguments; the default is SharedPromptTrainer.
    """
    from transformers import PrinterCallback

    from r1nb.training.trainer import SharedPromptTrainer

    rewards = recipe.reward_funcs(policy.end_tokens)
    read = [reward.reads for reward in rewards]
    columns = rows.column_names if None in read else {"prompt"}.union(*read)
    trainer = (trainer_class or SharedPromptTrainer)(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=rewards,
        args=grpo_config(recipe, output_dir),
        train_dataset=rows.select_columns([name for name in rows.column_names if name in columns]),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def solution_examples(rows, layout: Layout):
    """SFT examples {prompt, completion} from the rows' solutions; raises UserError if there are none."""
    rows = rows.filter(lambda solution: solution != "", input_columns="solution")
    if not len(rows):
        raise UserError("No row of the dataset has a solution to train on: leave out the section sft.")

    def as_example(row: dict) -> dict:
        reply = layout.format_reply(row["solution"], row["answer"])
        return {"completion": [{"role": "assistant", "content": reply}]}

    return rows.map(as_example).select_columns(["prompt", "completion"])


def sft(policy, examples, recipe, output_dir, callbacks=()) -> float:
    """Train the adapter by SFT, with the settings of the recipe's `sft` section; returns the mean loss.

    `examples` have {prompt, completion}, both lists of chat messages. Only the completions count in the loss.
    """
    from transformers import PrinterCallback
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=policy.model,
        args=sft_config(recipe, output_dir),
        train_dataset=examples.map(_as_tokens, fn_kwargs={"tokenizer": policy.tokenizer}),
        processing_class=policy.tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    with out_of_memory_in_words(remedy_for(recipe.name, recipe.grpo)):
        return trainer.train().training_loss


def _as_tokens(example: dict, tokenizer) -> dict:
    """An example as TRL's input_ids and labels: the prompt, then the reply as the policy should write it.

    Many chat templates add an empty block of reasoning to a reply, or cut its reasoning out; then the reply
    is taken as it is, and the end token follows.
    """
    prompt, reply = format_prompt(tokenizer, example["prompt"]), completion_text(example["completion"])
    whole = tokenizer.apply_chat_template(example["prompt"] + example["completion"], tokenize=False)
    end = whole.removeprefix(prompt + reply) if whole.startswith(prompt + reply) else tokenizer.eos_token
    asked, written = tokenizer([prompt, reply + end], add_special_tokens=False).input_ids
    return {"input_ids": asked + written, "labels": [-100] * len(asked) + written}


def finish(run, policy, tests: dict, recipe, base: dict) -> Proof | None:
    """Finish a run: evaluate the test rows, save the adapter, and prove it in a fresh process.

    `base` is what evaluate_tests returned before training, {split: graded}. With several processes only the
    main process saves and proves; the others return None.
    """
    after = evaluate_tests(run, "after", policy, tests, recipe)
    with whole_weights(policy.model.parameters()):
        if is_main():
            policy.save_trained(run)
    if not is_main():
        return None
    split, rows = next(iter(tests.items()))
    return prove(run, rows, trained=after[split], base=base[split])
