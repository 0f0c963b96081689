"""The format: system prompt, chat messages, and the parsing of a completion."""

import re
from dataclasses import dataclass

SYSTEM_PROMPT = """\
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>"""
# DeepSeek-R1's (arXiv 2501.12948, Table 1), as a system prompt.
R1_PROMPT = """\
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. \
The assistant first thinks about the reasoning process in the mind and then provides the user with \
the answer. The reasoning process and answer are enclosed within <think> </think> and <answer> \
</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>."""


@dataclass(frozen=True)
class Layout:
    """How a reply is laid out: a block of reasoning, then one with the answer, each between tags."""

    system_prompt: str
    tags: tuple[str, str, str, str]

    @property
    def prefill(self) -> str:
        """Put into the policy's mouth, it shows what the format alone is worth."""
        return f"{self.tags[0]}\n"


LAYOUTS = {
    "reasoning": Layout(SYSTEM_PROMPT, ("<reasoning>", "</reasoning>", "<answer>", "</answer>")),
    "think": Layout(R1_PROMPT, ("<think>", "</think>", "<answer>", "</answer>")),
}

# For models without a chat template: the messages as plain paragraphs, then the reply.
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] + '\n\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def build_messages(question: str, layout: str = "reasoning") -> list[dict[str, str]]:
    """A question as the chat messages that training, evaluation and sampling all begin with."""
    return [
        {"role": "system", "content": LAYOUTS[layout].system_prompt},
        {"role": "user", "content": question},
    ]


def ensure_chat_template(tokenizer) -> None:
    """Give a tokenizer without a chat template the plain one; TRL then formats as r1nb does."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE


def format_prompt(tokenizer, messages: list[dict[str, str]], prefill: str = "") -> str:
    """The text that the model continues: chat template, generation prompt, prefill.

    GRPOTrainer makes the same tokens from the same messages (a test compares the two).
    """
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text + prefill


def format_answer(reasoning: str, answer: str, layout: str = "reasoning") -> str:
    """The ideal completion, laid out as the system prompt asks, each tag on a line of its own."""
    tags = LAYOUTS[layout].tags
    return "\n".join([tags[0], reasoning, tags[1], tags[2], answer, tags[3]])


def completion_text(completion) -> str:
    """The text of a completion: a string, chat messages, or content in parts; None is ''."""
    if isinstance(completion, list):  # messages, or the parts of one message
        return "".join(completion_text(part) for part in completion)
    if isinstance(completion, dict):
        if completion.get("role", "assistant") != "assistant":
            return ""  # what a tool or the user said is not the policy's
        return completion_text(completion.get("content", completion.get("text")))
    return completion if isinstance(completion, str) else ""


@dataclass(frozen=True)
class Parsed:
    """A completion cut at its four tags; each stands exactly once, in order."""

    before: str
    reasoning: str
    between: str
    answer: str
    after: str


def parse_completion(text: str, layout: str = "reasoning") -> Parsed | None:
    """Cut a completion at its tags; None unless each stands exactly once and in order."""
    tags = LAYOUTS[layout].tags
    if any(text.count(tag) != 1 for tag in tags):
        return None
    places = [text.index(tag) for tag in tags]
    return Parsed(*re.split("|".join(tags), text)) if places == sorted(places) else None


def find_fault(text: str, layout: str = "reasoning") -> str:
    """Why parse_completion returns None, in words; "" where it does not."""
    tags = LAYOUTS[layout].tags
    if not any(tag in text for tag in tags):
        return "no tags at all"
    for tag in tags:
        if (count := text.count(tag)) != 1:
            return f"{tag} is missing" if not count else f"{tag} stands {count} times"
    return "" if parse_completion(text, layout) else "the tags are not in order"


def read_answer(text: str, layout: str = "reasoning") -> tuple[str, str]:
    """(the answer block, why there is none): the first is stripped, the second "" where it was read."""
    parsed = parse_completion(text, layout)
    return (parsed.answer.strip(), "") if parsed else ("", f"no answer to read: {find_fault(text, layout)}")
