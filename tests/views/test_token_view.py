"""The token view colours each token by the adapter's effect, computed with a real model."""

import math

import pytest
import torch
from written_run import HOSTILE

from r1nb.policy.loading import attach_lora, load_policy
from r1nb.text.prompts import REASONING, format_prompt
from r1nb.views.token_view import FULL, show_gains, token_gains

QUESTION, COMPLETION = "What is 3 + 4?", "<answer>\n7\n</answer>"


@pytest.fixture(scope="module")
def policy():
    from r1nb.recipes.loading import load_recipe

    recipe = load_recipe()
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    return policy


def shift(policy, size: float) -> None:
    torch.manual_seed(0)
    for name, weights in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=size)


def log_likelihood(policy, text: str, adapter: bool) -> float:
    """Return the log-likelihood, from the loss that transformers computes."""
    prompt = format_prompt(policy.tokenizer, REASONING.build_messages(QUESTION))
    start = len(policy.tokenizer(prompt, add_special_tokens=False).input_ids)
    ids = policy.tokenizer(prompt + text, add_special_tokens=False, return_tensors="pt").input_ids
    labels = ids.clone()
    labels[:, :start] = -100
    switch = torch.no_grad() if adapter else policy.model.disable_adapter()
    with torch.no_grad(), switch:
        return -float(policy.model(ids, labels=labels).loss) * (ids.shape[1] - start)


def test_a_fresh_adapter_changes_nothing(policy):
    shift(policy, 0.0)
    gains = token_gains(policy, QUESTION, COMPLETION, REASONING)
    assert "".join(text for text, _ in gains) == COMPLETION
    assert max(abs(gain) for _, gain in gains) < 1e-5


def test_gains_add_up_to_the_ratio_of_likelihoods(policy):
    shift(policy, 0.05)
    gains = token_gains(policy, QUESTION, COMPLETION, REASONING)
    ratio = log_likelihood(policy, COMPLETION, True) - log_likelihood(policy, COMPLETION, False)
    assert math.isclose(sum(gain for _, gain in gains), ratio, abs_tol=1e-3)
    assert abs(ratio) > 0.1


def test_colours_show_the_gains(policy, monkeypatch):
    likelier, less = ("a", FULL), ("b", -FULL / 2)
    monkeypatch.setattr("r1nb.views.token_view.token_gains", lambda *args: [likelier, less, ("c\n", 0.0)])
    page = show_gains(policy, QUESTION, "abc").data
    assert 'title="10 times as likely" style="background:rgba(0,114,178,0.60)">a<' in page
    assert 'title="0.316 times as likely" style="background:rgba(213,94,0,0.30)">b<' in page
    assert "c↵\n" in page
    for label in ("÷ 10", "÷ 3.2", "× 1", "× 3.2", "× 10"):  # noqa: RUF001
        assert label in page


@pytest.mark.parametrize("text", [*HOSTILE, "é🙂 ñ", ""])
def test_any_text_is_shown_and_its_markup_is_escaped(policy, text):
    page = show_gains(policy, QUESTION, text).data
    assert not any(tag in page for tag in ("<script", "<img", "<style", "<b on", "\x1b", "\u202e"))
    gains = token_gains(policy, QUESTION, text, REASONING)
    assert "".join(piece for piece, _ in gains) == text
