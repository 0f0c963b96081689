"""The format: prompts as messages and as text, and completions split at their tags."""

import pytest
from jinja2 import Template

from r1nb.text.prompts import (
    REASONING,
    SYSTEM_PROMPT,
    completion_text,
    ensure_chat_template,
    format_prompt,
)

TAGS, PREFILL = REASONING.tags, REASONING.prefill


class TinyTokenizer:
    """The part of a tokenizer that a prompt needs: a chat template and its rendering."""

    def __init__(self, chat_template=None):
        self.chat_template = chat_template

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        assert not tokenize
        return Template(self.chat_template).render(
            messages=messages, add_generation_prompt=add_generation_prompt, eos_token="<eos>"
        )


def test_messages_are_the_system_prompt_and_the_question():
    assert REASONING.build_messages("How many?") == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "How many?"},
    ]


def test_an_ideal_reply_has_the_format_of_the_system_prompt():
    ideal = REASONING.format_reply("...", "...")
    assert ideal == "<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"
    assert SYSTEM_PROMPT.endswith(ideal)
    assert ideal.startswith(PREFILL)


def test_a_tokenizer_without_a_chat_template_gets_plain_paragraphs():
    tokenizer = TinyTokenizer()
    ensure_chat_template(tokenizer)
    assert format_prompt(tokenizer, REASONING.build_messages("How many?")) == (
        f"{SYSTEM_PROMPT}\n\nHow many?\n\n"
    )
    reply = {"role": "assistant", "content": "Two."}
    assert format_prompt(tokenizer, [reply]) == "Two.\n\n<eos>"


def test_a_chat_template_is_kept_and_adds_the_generation_prompt():
    template = "{{ messages[-1].content }}{% if add_generation_prompt %}|assistant:{% endif %}"
    tokenizer = TinyTokenizer(template)
    ensure_chat_template(tokenizer)
    assert tokenizer.chat_template == template
    assert format_prompt(tokenizer, REASONING.build_messages("Hi"), PREFILL) == f"Hi|assistant:{PREFILL}"


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"role": "assistant", "content": "one"}], "one"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant"}], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "part"}]}], "part"),
        ([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}], "ab"),
    ],
)
def test_the_text_of_a_completion(completion, text):
    assert completion_text(completion) == text


def test_a_completion_is_split_at_its_tags():
    parsed = REASONING.parse("Sure!" + REASONING.format_reply("a\nb", "72") + "\nDone")
    assert parsed.before == "Sure!"
    assert parsed.reasoning == "\na\nb\n"
    assert parsed.between == "\n"
    assert parsed.answer == "\n72\n"
    assert parsed.after == "\nDone"


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("change", ["missing", "twice", "upper case", "with a space"])
def test_a_completion_with_a_broken_tag_is_not_parsed(tag, change):
    broken = {
        "missing": "",
        "twice": tag * 2,
        "upper case": tag.upper(),
        "with a space": tag.replace(">", " >"),
    }[change]
    assert REASONING.parse(REASONING.format_reply("a", "72").replace(tag, broken)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "72",
        "<answer>72</answer><reasoning>a</reasoning>",
        "<reasoning>a<answer>72</answer></reasoning>",
        "<reasoning>a<answer></reasoning>72</answer>",
        "</reasoning>a<reasoning><answer>72</answer>",
        "<reasoning>a</reasoning></answer>72<answer>",
    ],
)
def test_a_completion_with_tags_in_another_order_is_not_parsed(text):
    assert REASONING.parse(text) is None
