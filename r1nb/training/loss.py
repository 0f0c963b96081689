"""GRPO on one page: what TRL's trainer computes for a group of completions, in plain PyTorch.

This module is for reading: training runs TRL's code. A test compares both on the same group.
"""

import torch


def group_advantages(rewards, scale: bool = True):
    """(reward - mean) / standard deviation within each group; `rewards` has the shape (..., group size).

    arXiv 2402.03300, section 4.1.2. With scale=False only the mean is subtracted (arXiv 2503.20783).
    """
    centered = rewards - rewards.mean(-1, keepdim=True)
    return centered / (rewards.std(-1, keepdim=True) + 1e-4) if scale else centered


def grpo_loss(logps, old_logps, ref_logps, mask, advantages, loss_type, max_length, epsilon=0.2, beta=0.0):
    """The loss of a group (arXiv 2402.03300, equation 3).

    logps, old_logps, ref_logps: (completions, tokens), log-probabilities of the sampled tokens under the
    policy as it is now, under the policy that sampled them, and under the base model. mask: the same shape,
    1 for a token and 0 for padding. advantages: (completions,). max_length: the most tokens of a completion.
    """
    ratio = torch.exp(logps - old_logps)  # how much more likely each token is now than when it was sampled
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.min(ratio * advantages[:, None], clipped * advantages[:, None])
    kl = torch.exp(ref_logps - logps) - (ref_logps - logps) - 1  # estimate of KL(policy || base), per token
    per_token = (beta * ratio * kl - gain) * mask  # the ratio keeps KL's gradient unbiased (arXiv 2512.02556)
    if loss_type == "grpo":  # the mean of each completion, then the mean of those
        return (per_token.sum(1) / mask.sum(1)).mean()
    if loss_type == "dapo":  # every token of the batch weighs the same
        return per_token.sum() / mask.sum()
    if loss_type == "dr_grpo":  # divided by a constant: tokens of long completions weigh no less
        return per_token.sum() / (len(per_token) * max_length)
    raise ValueError(f"loss_type = {loss_type!r} is not implemented here: use grpo, dapo or dr_grpo.")
