"""Log-probabilities from a model's last hidden states, without its logits for all tokens at once.

The logits of a large vocabulary take most of the memory and much of the time of a small model on a CPU. Here
a few tokens at a time go through the head, and their probabilities are kept in bfloat16 for the gradient.
"""

from contextlib import contextmanager

import torch
from torch import nn

TOKENS = 256  # that go through the head at once
SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # in configs: not a plain product


class HeadLogps(torch.autograd.Function):
    """(log-probabilities, entropies), each (tokens,), of `targets` (tokens,) for `states` (tokens, width).

    `weight` is the head's (vocabulary, width), which gets no gradient. The entropies have no gradient.
    """

    @staticmethod
    def forward(ctx, states, weight, targets, temperature):
        logps, entropies, ctx.kept = [], [], []
        scaled = (states.float() / temperature).to(weight.dtype)
        for part, target in zip(scaled.split(TOKENS), targets.split(TOKENS), strict=True):
            logs = torch.log_softmax(part @ weight.T, -1, dtype=torch.float32)
            chances = logs.exp()
            logps.append(logs.gather(1, target[:, None])[:, 0])
            entropies.append(-torch.bmm(chances[:, None], logs[:, :, None])[:, 0, 0])
            ctx.kept.append((chances.to(weight.dtype), target))
        ctx.weight, ctx.temperature, ctx.dtype = weight, temperature, states.dtype
        found = torch.cat(logps), torch.cat(entropies)
        ctx.mark_non_differentiable(found[1])
        return found

    @staticmethod
    def backward(ctx, gradient, _):
        found = []
        for (chances, target), slope in zip(ctx.kept, gradient.split(TOKENS), strict=True):
            slope = slope.to(chances.dtype)[:, None]
            by_logit = chances.mul(-slope).scatter_add_(1, target[:, None], slope)
            found.append(by_logit @ ctx.weight)
        return (torch.cat(found) / ctx.temperature).to(ctx.dtype), None, None, None


def plain_head(model):
    """The head of a model in bfloat16 on a CPU if it is only a matrix, without an adapter; else None."""
    model = getattr(model, "get_base_model", lambda: model)()
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    plain = type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad
    fast = plain and head.weight.dtype == torch.bfloat16 and head.weight.device.type == "cpu"
    return head if fast and not any(getattr(config, key, None) for key in SCALED) else None


@contextmanager
def without(head):
    """Inside the block the model returns its last hidden states as its logits."""
    head.forward = lambda states: states
    try:
        yield
    finally:
        del head.forward
