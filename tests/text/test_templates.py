"""A tokenizer is adapted once: the format reaches the prompt, and the whole reply reaches the rewards."""

from datetime import date
from importlib import resources

import pytest
from transformers import AutoTokenizer

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.text.prompts import LAYOUTS, REASONING, THINK, format_prompt
from r1nb.text.templates import prepare_tokenizer

SHIPPED = sorted(resources.files("trl").joinpath("chat_templates").glob("*.jinja"))
EACH = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
)
BEGIN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = EACH + BEGIN
REFUSE = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
REFUSED = "raises 'System role not supported'"
DROPPED = "drops the system message"
# Chat templates that lose a system message, and what is said about it.
NO_SYSTEM = {
    "refused": (REFUSE + CHATML, REFUSED),
    "the user must be first": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
        "raises 'Roles must alternate'",
    ),
    "a role without a name": ("{{ {'user': 'U: '}[messages[0].role] + messages[-1].content }}", "raises"),
    "skipped": (EACH.replace("in messages", "in messages if m.role != 'system'") + BEGIN, DROPPED),
    "only the last message": ("{{ messages[-1].content }}" + BEGIN, DROPPED),
    "cut off": ("{% set messages = messages[1:] or messages %}" + CHATML, DROPPED),
    "replaced": ("{% for m in messages %}{{ '' if m.role == 'system' else m.content }}{% endfor %}", DROPPED),
    "in a macro": (
        "{% macro all() %}{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}"
        "{% endfor %}{% endmacro %}{{ all() }}",
        DROPPED,
    ),
    "begins with line breaks": ("\n\n" + REFUSE + "\n" + CHATML + "\n", REFUSED),
}
SHORTENED = "{% for m in messages %}{{ m.content[:60] }}{% endfor %}"
THINKS = BEGIN.replace("assistant\n", "assistant\n<think>\n")
OPTION = "{{ '[' ~ (style if style is defined else 'none') ~ ']' }}"


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "tiny-policy")


def prompt_of(tokenizer, layout=REASONING, question="How many?") -> str:
    messages = layout.build_messages(question)
    text = format_prompt(tokenizer, messages)
    theirs = tokenizer.apply_chat_template([messages], add_generation_prompt=True, return_dict=True)
    (ids,) = theirs["input_ids"]  # as TRL calls it
    assert ids == tokenizer(text, add_special_tokens=False).input_ids
    return text


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_chat_templates_of_real_models(tokenizer, path, layout):
    tokenizer.chat_template, tokenizer.bos_token = path.read_text(), "<s>"
    if path.stem.startswith(("idefics3", "llava_next")):  # they take a message only in parts
        with pytest.raises(UserError, match="The chat template of this model drops the question"):
            prepare_tokenizer(tokenizer, layout)
        return
    messages = layout.build_messages("How many?")
    before = None if path.stem in ("gemma", "gemma_training") else format_prompt(tokenizer, messages)
    said = prepare_tokenizer(tokenizer, layout)
    prompt = prompt_of(tokenizer, layout)
    assert layout.system_prompt in prompt
    assert not prompt.rstrip().endswith("<think>")
    assert bool(said) == (prompt != before)
    if before:
        assert before in (prompt, prompt + "<think>\n", prompt + "<think>\n\n</think>\n\n")


def test_a_tokenizer_without_a_chat_template_gets_plain_paragraphs(tokenizer):
    tokenizer.chat_template = None
    assert prepare_tokenizer(tokenizer, REASONING) == []
    assert prompt_of(tokenizer) == f"{REASONING.system_prompt}\n\nHow many?\n\n"
    reply = [{"role": "assistant", "content": "Two."}]
    assert tokenizer.apply_chat_template(reply, tokenize=False) == f"Two.\n\n{tokenizer.eos_token}"


def test_plain_paragraphs_begin_with_the_begin_token_if_the_tokenizer_adds_one(tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer.chat_template, tokenizer.bos_token = None, "<|im_start|>"
    begin = ("<|im_start|>", tokenizer.bos_token_id)
    adds = TemplateProcessing(single="<|im_start|> $A", special_tokens=[begin])
    tokenizer.backend_tokenizer.post_processor = adds
    prepare_tokenizer(tokenizer, REASONING)
    assert prompt_of(tokenizer) == f"<|im_start|>{REASONING.system_prompt}\n\nHow many?\n\n"


@pytest.mark.parametrize("end", ["", "{% if add_generation_prompt %}A: <think>\n{% endif %}"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_a_system_prompt_after_the_question_is_not_cut(tokenizer, layout, end):
    tokenizer.chat_template = "{% for m in messages[::-1] %}{{ m.content }}\n{% endfor %}" + end
    assert len(prepare_tokenizer(tokenizer, layout)) == bool(end)
    prompt = prompt_of(tokenizer, layout)
    assert prompt == f"How many?\n{layout.system_prompt}\n" + ("A: " if end else "")


def test_a_chat_template_that_loses_nothing_is_kept(tokenizer):
    for template in (CHATML, tokenizer.chat_template):
        tokenizer.chat_template = template
        assert prepare_tokenizer(tokenizer, REASONING) == []
        assert tokenizer.chat_template == template


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", NO_SYSTEM)
def test_a_template_without_a_system_message_gets_it_in_the_users(tokenizer, name, layout):
    tokenizer.chat_template, why = NO_SYSTEM[name]
    merged = [{"role": "user", "content": f"{layout.system_prompt}\n\nHow many?"}]
    expected = format_prompt(tokenizer, merged)
    (sentence,) = prepare_tokenizer(tokenizer, layout)
    assert sentence.startswith(f"The chat template {why}")
    assert layout.system_prompt in expected
    assert prompt_of(tokenizer, layout) == expected


@pytest.mark.parametrize("template", ["{% for %}", "no messages", SHORTENED, "{{ 1 / 0 }}"])
def test_a_template_that_cannot_show_a_question_is_refused(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(UserError, match="the policy would not see its task") as refused:
        prepare_tokenizer(tokenizer, REASONING)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("begun", ["<think>", "<think>\n", "<think>\n\n", " <think> ", "<think>\nOkay, so"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("refuse", ["", REFUSE])
def test_the_policy_writes_the_block_that_the_template_opens(tokenizer, begun, layout, refuse):
    tokenizer.chat_template = refuse + EACH + BEGIN.replace("assistant\n", f"assistant\n{begun}")
    *_, sentence = prepare_tokenizer(tokenizer, layout)
    assert f"ends each prompt with {begun.lstrip()!r}, which no reward would see" in sentence
    prompt = prompt_of(tokenizer, layout)
    assert prompt.endswith("How many?<|im_end|>\n<|im_start|>assistant\n" + begun[: begun.index("<")])
    assert prepare_tokenizer(tokenizer, layout) == []  # of an exported model


def test_a_closed_block_stays_unless_it_is_the_layouts_own(tokenizer):
    closed = "<think>\n\n</think>\n\n"
    template = EACH + BEGIN.replace("assistant\n", f"assistant\n{closed}")
    tokenizer.chat_template = template
    assert prepare_tokenizer(tokenizer, REASONING) == []
    assert prompt_of(tokenizer).endswith(closed)
    (sentence,) = prepare_tokenizer(tokenizer, THINK)
    assert repr(closed) in sentence
    assert prompt_of(tokenizer, THINK).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("end", ["", "Reason in <think> </think>.", "Begin with <think>"])
def test_a_tag_that_the_template_only_mentions_stays(tokenizer, end):
    template = EACH.replace("m['content'] +", f"m['content'] + '{end}' +") + BEGIN
    tokenizer.chat_template = template
    assert prepare_tokenizer(tokenizer, THINK) == []
    assert prompt_of(tokenizer, THINK).endswith(f"How many?{end}<|im_end|>\n<|im_start|>assistant\n")


VALUES = (False, True, None, 0, -1.5, "", 'it\'s "so"', "{% raw %}", "}}", "über", "a\nb", [1, "x"], {"a": 1})


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_option_reaches_every_prompt_as_trl_renders_it(tokenizer, value):
    tokenizer.chat_template = CHATML + OPTION
    messages = REASONING.build_messages("How many?")
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, style=value)
    assert prepare_tokenizer(tokenizer, REASONING, {"style": value}) == []
    assert prompt_of(tokenizer) == theirs
    assert theirs.endswith(f"[{value}]")
    again = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, style=value)
    assert again == theirs  # TRL gives the option, too
    assert prepare_tokenizer(tokenizer, REASONING, {"style": value}) == []  # of an exported model
    assert prompt_of(tokenizer) == theirs


def test_another_value_of_an_option_wins_over_the_one_in_an_exported_template(tokenizer):
    tokenizer.chat_template = CHATML + OPTION + "{{ other }}"
    prepare_tokenizer(tokenizer, REASONING, {"style": "a", "other": 1})
    for value in ("b\\1", None):
        prepare_tokenizer(tokenizer, REASONING, {"style": value})
        assert prompt_of(tokenizer).endswith(f"[{value}]1")


def test_an_option_decides_what_the_template_opens(tokenizer):
    template = EACH + "{% if enable_thinking %}" + THINKS + "{% else %}" + BEGIN + "{% endif %}"
    tokenizer.chat_template = template
    assert prepare_tokenizer(tokenizer, THINK, {"enable_thinking": False}) == []
    tokenizer.chat_template = template
    (sentence,) = prepare_tokenizer(tokenizer, THINK, {"enable_thinking": True})
    assert "'<think>\\n'" in sentence
    assert prompt_of(tokenizer, THINK).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stile": 1}, "sets 'stile', but the chat template of this model does not read it; did you mean"),
        ({"enable_thinking": False}, "does not read it. It reads: style."),
        ({"messages": []}, "sets 'messages'"),
        ({"add_generation_prompt": False}, "sets 'add_generation_prompt'"),
        ({"tokenize": False}, "sets 'tokenize'"),
        ({"not a name": 1}, "sets 'not a name'"),
        ("style=1", "chat_template_kwargs = 'style=1': write it as key: value"),
        ({"style": date(2025, 1, 1)}, "sets 'style' to datetime.date(2025, 1, 1), which is not a string"),
        ({"style": float("inf")}, "sets 'style' to inf, which is not a string, number"),
    ],
)
def test_an_option_that_does_nothing_or_would_break_trl_is_refused(tokenizer, options, words):
    tokenizer.chat_template = CHATML + OPTION
    with pytest.raises(UserError) as refused:
        prepare_tokenizer(tokenizer, REASONING, options)
    assert words in str(refused.value)


def test_of_several_templates_trls_is_taken(tokenizer):
    tokenizer.chat_template = {"default": CHATML, "tool_use": "tools"}
    assert prepare_tokenizer(tokenizer, REASONING) == []
    assert tokenizer.chat_template == CHATML


def test_several_templates_without_a_default_are_refused(tokenizer):
    tokenizer.chat_template = {"rag": CHATML, "tool_use": "tools"}
    with pytest.raises(UserError, match=r"has the chat templates rag, tool_use, but none is named default"):
        prepare_tokenizer(tokenizer, REASONING)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("special", ["all", "first", "stripping"])
def test_tags_that_are_special_tokens_survive_decoding(tokenizer, layout, special, tmp_path):
    from transformers import AddedToken

    tags = list(layout.tags) if special != "first" else [layout.tags[0]]
    if special == "stripping":
        tags = [AddedToken(tag, lstrip=True, rstrip=True, special=True) for tag in tags]
    tokenizer.add_special_tokens({"extra_special_tokens": tags})
    ideal = layout.format_reply("So 5.", "5")
    ids = [i for line in ideal.splitlines(keepends=True)
           for part in (line.rstrip("\n"), "\n")
           for i in tokenizer(part, add_special_tokens=False).input_ids][:-1]  # fmt: skip
    assert layout.tags[0] not in tokenizer.decode(ids, skip_special_tokens=True)
    size = len(tokenizer)
    for _ in range(2):
        prepare_tokenizer(tokenizer, layout)
        assert tokenizer.decode(ids, skip_special_tokens=True) == ideal
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == ideal
        assert len(tokenizer) == size
        tokenizer.save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
