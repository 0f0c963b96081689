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
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
PREFILL = "<reasoning>\n"  # put into the policy's mouth, it shows what the format alone is worth

# For models without a chat template: the messages as plain paragraphs, then the reply.
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] + '\n\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def build_messages(question: str) -> list[dict[str, str]]:
    """A question as the chat messages that training, evaluation and sampling all begin with."""
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
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


def format_answer(reasoning: str, answer: str) -> str:
    """The ideal completion, laid out as the system prompt asks."""
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"


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


def parse_completion(text: str) -> Parsed | None:
    """Cut a completion at its tags; None unless each stands exactly once and in order."""
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    pieces = re.split("|".join(TAGS), text)
    return Parsed(*pieces) if re.findall("|".join(TAGS), text) == list(TAGS) else None
