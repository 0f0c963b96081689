"""Adapt a tokenizer once, when a model is loaded, so that TRL and r1nb use the same text."""

import inspect
import json
import re

from r1nb.errors import UserError, did_you_mean, first_line
from r1nb.text.prompts import LAYOUTS, Layout, format_prompt

# For models without a chat template: each message is a paragraph.
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] + '\n\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
# Put before a template that takes no system message: the user's message then begins with it.
MERGE_SYSTEM = (
    "{% if messages|length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' + messages[1]['content']}"
    "] + messages[2:] %}{% endif %}\n"  # Jinja drops this line break
)
# Put around a template whose prompts end with text that the policy should write.
WITHOUT_END = (
    "{{% set r1nb_text %}}\n{}{{% endset %}}"
    "{{{{ r1nb_text.removesuffix({!r}) if add_generation_prompt else r1nb_text }}}}"
)
QUESTION = "What is 7 plus 5?"


def prepare_tokenizer(tokenizer, layout: Layout, options: dict | None = None) -> list[str]:
    """Adapt a tokenizer to the layout; returns a sentence for each change that the user should know.

    `options` are TRL's chat_template_kwargs. They become part of the chat template, so that all prompts have
    them. The layout's tags survive decoding. The system prompt reaches the prompt also if the template takes
    no system message, and the policy writes the whole reply, also if the template would begin it. Raises
    UserError if the template does not read an option, or cannot show the system prompt and the question.
    """
    tokenizer.response_template = None  # TRL would parse completions by it: rewards would miss the reasoning
    if isinstance(several := tokenizer.chat_template, dict):  # TRL would take the default
        if "default" not in several:
            why = f"The tokenizer has the chat templates {', '.join(several)}, but none is named default"
            raise UserError(f"{why}: name one of them default in the model's files.")
        tokenizer.chat_template = several["default"]
    if not tokenizer.chat_template:
        begins = tokenizer.bos_token and tokenizer.bos_token_id in tokenizer("").input_ids[:1]
        tokenizer.chat_template = "{{ bos_token }}" * bool(begins) + PLAIN_CHAT_TEMPLATE
    _keep_tags(tokenizer, layout.tags)
    _set_options(tokenizer, options or {})
    said = []
    if why := _what_is_lost(tokenizer, layout):
        tokenizer.chat_template = MERGE_SYSTEM + tokenizer.chat_template
        if still := _what_is_lost(tokenizer, layout):
            raise UserError(
                f"The chat template of this model {still}, so the policy would not see its task: choose a "
                "model whose template takes a question as plain text, or mend its chat_template."
            )
        said.append(f"The chat template {why}, so the system prompt is put before the question.")
    if end := _begun_reply(tokenizer, layout):
        whole = tokenizer.chat_template.removesuffix("\n")  # Jinja drops it at the end of a template
        tokenizer.chat_template = WITHOUT_END.format(whole, end)
        said.append(
            f"The chat template ends each prompt with {end!r}, which no reward would see: r1nb leaves it out "
            "of the prompt, and the policy writes it."
        )
    return said


def _keep_tags(tokenizer, tags) -> None:
    """Make tags that are special tokens ordinary ones: decoding drops special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend else {"added_tokens": []}
    lost = [each for each in state["added_tokens"] if each["special"] and each["content"].strip() in tags]
    if lost:  # a tokenizer has no method for it
        for each in lost:
            each["special"] = False
        tokenizer._tokenizer = type(backend).from_str(json.dumps(state))


def _set_options(tokenizer, options: dict) -> None:
    from transformers.utils.chat_template_utils import _get_template_variables

    if not isinstance(options, dict):
        raise UserError(f"chat_template_kwargs = {options!r}: write it as key: value, for example "
                        "{enable_thinking: false}.")  # fmt: skip
    taken = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            why = "which is not a string, number, boolean, list or mapping"
            raise UserError(
                f"chat_template_kwargs sets {name!r} to {value!r}, {why}: put it in quotes."
            ) from None
        line = f"{{% set {name} = {value!r} %}}\n"
        before = rf"^\{{% set {re.escape(str(name))} = .* %\}}\n"  # of an exported model
        template, found = re.subn(before, lambda _, line=line: line, tokenizer.chat_template, flags=re.M)
        if found:
            tokenizer.chat_template = template
            continue
        known = sorted(_get_template_variables(tokenizer.chat_template) - taken)
        if name not in known:
            raise UserError(
                f"chat_template_kwargs sets {name!r}, but the chat template of this model does not read it"
                f"{did_you_mean(name, known)} It reads: {', '.join(known) or 'nothing'}."
            )
        tokenizer.chat_template = line + tokenizer.chat_template


def _what_is_lost(tokenizer, layout: Layout) -> str:
    """What the chat template does with a prompt that loses text, in words; "" if the whole text is there."""
    try:
        text = format_prompt(tokenizer, layout.build_messages(QUESTION))
    except Exception as error:  # a template may fail in any way
        return f"raises {first_line(error)!r}"
    if QUESTION not in text:
        return "drops the question"
    return "" if layout.system_prompt in text else "drops the system message"


def _begun_reply(tokenizer, layout: Layout) -> str:
    """The end of a prompt that the policy should write instead; "" if there is none.

    It is a block of reasoning that the template opens. If it closes the block too, the policy can still write
    a whole reply in a layout with other tags; setting enable_thinking=false does this on purpose.
    """
    messages = layout.build_messages(QUESTION)
    texts = format_prompt(tokenizer, messages), tokenizer.apply_chat_template(messages, tokenize=False)
    end, without = (
        re.split(f"{re.escape(QUESTION)}|{re.escape(layout.system_prompt)}", text)[-1] for text in texts
    )
    if end == without:  # the template ignores add_generation_prompt
        without = ""
    for opened, closed, *_ in (each.tags for each in LAYOUTS.values()):
        _, tag, after = end.rpartition(opened)
        begun = end.count(opened) > without.count(opened)  # it may also be only mentioned
        if begun and (opened in layout.tags or closed not in after):
            return tag + after
    return ""
