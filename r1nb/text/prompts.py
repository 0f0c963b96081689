"""Build the policy's prompts and parse its replies: system prompts, chat messages, tags."""

import re
from collections import namedtuple
from dataclasses import dataclass

SYSTEM_PROMPT = """\
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>"""
# DeepSeek-R1's prompt (arXiv 2501.12948, Table 1), used as a system prompt.
R1_PROMPT = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. \
The assistant first thinks about the reasoning process in the mind and then provides the user with \
the answer. The reasoning process and answer are enclosed within <think> </think> and <answer> \
</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>."""


# A completion split at its four tags, each of which occurs exactly once, in order.
Parsed = namedtuple("Parsed", "before reasoning between answer after")


@dataclass(frozen=True)
class Layout:
    """The format of a reply: a block of reasoning, then a block with the answer, each between tags."""

    name: str
    system_prompt: str
    tags: tuple[str, str, str, str]

    @property
    def prefill(self) -> str:
        """The start of a well-formed reply.

        A base model that is prefilled with it shows how much the format alone improves its accuracy.
        """
        return f"{self.tags[0]}\n"

    def build_messages(self, question: str) -> list[dict[str, str]]:
        """A question as the chat messages that training, evaluation and sampling all use."""
        return [
            {"role": "system", "content": self.system_prompt},
            {"role": "user", "content": question},
        ]

    def format_reply(self, reasoning: str, answer: str) -> str:
        """The ideal completion: both blocks, each tag on a line of its own."""
        return "\n".join([self.tags[0], reasoning, self.tags[1], self.tags[2], answer, self.tags[3]])

    def parse(self, text: str) -> Parsed | None:
        """Split a completion at its tags; None unless each tag occurs exactly once and in order."""
        pieces = re.split(f"({'|'.join(self.tags)})", text)  # the text between tags, and each tag
        return Parsed(*pieces[::2]) if tuple(pieces[1::2]) == self.tags else None

    def why_unreadable(self, text: str) -> str:
        """Why `parse` returns None, in words; "" if it does not."""
        if not any(tag in text for tag in self.tags):
            return "no tags at all"
        for tag in self.tags:
            if (count := text.count(tag)) != 1:
                return f"{tag} is missing" if not count else f"{tag} occurs {count} times"
        return "" if self.parse(text) else "the tags are not in order"

    def read_answer(self, text: str) -> tuple[str, str]:
        """Read the answer block: (its stripped text, ""), or ("", the reason) if it cannot be read."""
        if parsed := self.parse(text):
            return parsed.answer.strip(), ""
        return "", f"no answer to read: {self.why_unreadable(text)}"


REASONING = Layout("reasoning", SYSTEM_PROMPT, ("<reasoning>", "</reasoning>", "<answer>", "</answer>"))
THINK = Layout("think", R1_PROMPT, ("<think>", "</think>", "<answer>", "</answer>"))
LAYOUTS = {layout.name: layout for layout in (REASONING, THINK)}


def format_prompt(tokenizer, messages: list[dict[str, str]], prefill: str = "") -> str:
    """The text that the model continues: messages in the chat template, generation prompt, prefill.

    GRPOTrainer makes the same tokens from the same messages (a test compares the two).
    """
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + prefill


def completion_text(completion) -> str:
    """The text of a completion, which may be a string, chat messages or content in parts; "" for None."""
    if isinstance(completion, list):  # messages, or the parts of one message
        return "".join(completion_text(part) for part in completion)
    if isinstance(completion, dict):
        if completion.get("role", "assistant") != "assistant":
            return ""  # the policy did not write it, but a tool or the user
        return completion_text(completion.get("content", completion.get("text")))
    return completion if isinstance(completion, str) else ""
