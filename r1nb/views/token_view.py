"""Show how much likelier each token of a completion is with the adapter than with the base model."""

import math

from r1nb.text.prompts import REASONING, Layout, format_prompt
from r1nb.views.html import BOX, NO_MATH, escape

FULL = math.log(10)  # nats that get the full colour: ten times likelier, or ten times less likely
LIKELIER, UNLIKELIER = "0,114,178", "213,94,0"  # Okabe and Ito's blue and vermilion


def token_gains(policy, question: str, completion: str, layout: Layout) -> list[tuple[str, float]]:
    """(text, log p(token | adapter) - log p(token | base), in nats) of each token of a completion.

    Both come from one model, with the adapter on and off; temperature 1.
    """
    import torch
    from trl.trainer.utils import selective_log_softmax

    prompt = format_prompt(policy.tokenizer, layout.build_messages(question))
    whole = policy.tokenizer(
        prompt + completion, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt"
    )
    ids = whole.input_ids.to(policy.model.device)
    training = policy.model.training
    policy.model.eval()
    with torch.no_grad():
        adapter = selective_log_softmax(policy.model(ids).logits[:, :-1], ids[:, 1:])
        with policy.model.disable_adapter():
            base = selective_log_softmax(policy.model(ids).logits[:, :-1], ids[:, 1:])
    policy.model.train(training)
    gains: dict[tuple[int, int], float] = {}
    for span, gain in zip(whole.offset_mapping[0, 1:].tolist(), (adapter - base)[0].tolist(), strict=True):
        gains[tuple(span)] = gains.get(tuple(span), 0.0) + gain  # one character may be several tokens
    text, start = prompt + completion, len(prompt)
    return [(text[max(a, start) : b], gain) for (a, b), gain in gains.items() if b > start]


def show_gains(policy, question: str, completion: str, layout: Layout = REASONING):
    """The completion as HTML with a legend; the background of each token shows its gain."""
    from IPython.display import HTML

    if not policy.has_adapter:
        return HTML("There is no adapter to turn off: these are merged weights.")
    spans = "".join(_span(text, gain) for text, gain in token_gains(policy, question, completion, layout))
    scale = [(f"÷ {10**-power:.2g}" if power < 0 else f"× {10**power:.2g}", power * FULL)  # noqa: RUF001
             for power in (-1, -0.5, 0, 0.5, 1)]  # fmt: skip
    legend = " ".join(_span(f" {label} ", gain) for label, gain in scale)
    note = f"<p>Likelihood by the adapter, compared with the base: {legend}</p>"
    return HTML(f'<div {NO_MATH} dir="ltr" style="{BOX}">{spans}</div>{note}')


def _span(text: str, gain: float) -> str:
    color, share = (LIKELIER if gain > 0 else UNLIKELIER), min(1.0, abs(gain) / FULL)
    shown = escape(text.replace("\n", "↵\n"))
    title = f"{math.exp(min(gain, 50)):.3g} times as likely"
    return f'<span title="{title}" style="background:rgba({color},{share * 0.6:.2f})">{shown}</span>'
