"""Ask a trained model questions in a terminal."""

import dataclasses
import re

from rich.console import Console
from rich.text import Text

from r1nb.errors import UserError
from r1nb.paths import shown
from r1nb.policy.trained import load_trained
from r1nb.text.prompts import Layout, format_prompt
from r1nb.views.html import visible


def ask(folder, question: str | None, temperature: float, samples: int, show_prompt: bool) -> None:
    """Print the answers of a trained model and its base model to a question, `samples` answers of each.

    `folder` is as in load_trained. Without a question it asks for one after the other. Raises UserError if
    the question is too long; in a conversation, it prints the error and asks for the next one.
    """
    policy, recipe, trained = load_trained(folder)
    sampling = dataclasses.replace(recipe.greedy, temperature=temperature)
    console = Console(highlight=False, soft_wrap=True)

    def answer(question: str) -> None:
        messages = recipe.layout.build_messages(question)
        policy.check_room(messages, sampling.max_tokens)
        if show_prompt:
            console.print("the prompt", style="bold")
            console.print(Text(visible(format_prompt(policy.tokenizer, messages))), end="\n\n")
        for side, adapter in policy.sides.items():
            for completion in policy.generate([messages] * samples, sampling, adapter=adapter):
                cut = ", cut off" * completion.cut
                console.print(f"{side}, {len(completion.ids)} tokens{cut}", style="bold")
                console.print(_with_tags(completion.text, recipe.layout), end="\n\n")

    console.print(f"{shown(trained)} answers, loaded on {policy.model_settings.model_name}.", markup=False)
    if question:
        answer(question)
        return
    print("Each question stands on its own: no answer knows the questions before it. An empty line ends.")
    try:
        while (question := input("> ").strip()) not in ("", "exit", "quit"):
            try:
                answer(question)
            except UserError as error:
                print(error)
    except (EOFError, KeyboardInterrupt):
        print()


def _with_tags(text: str, layout: Layout) -> Text:
    shown_text = Text(visible(text))
    shown_text.highlight_regex("|".join(map(re.escape, layout.tags)), "bold magenta")
    return shown_text
