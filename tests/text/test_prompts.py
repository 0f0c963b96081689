"""The format: prompts as messages and as text, and completions split at their tags."""

import pytest

from r1nb.text.prompts import (
    REASONING,
    SYSTEM_PROMPT,
    completion_text,
)

TAGS, PREFILL = REASONING.tags, REASONING.prefill


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
