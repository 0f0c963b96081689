"""Log-probabilities and gradients without whole logits: those of TRL's own function."""

import pytest
import torch
from trl.trainer.utils import selective_log_softmax_and_entropy

from r1nb.training import head
from r1nb.training.head import HeadLogps


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_entropies_and_gradients_are_trls(monkeypatch, dtype, off, temperature):
    monkeypatch.setattr(head, "TOKENS", 8)  # several parts, the last one smaller
    torch.manual_seed(0)
    weight, targets, slopes = torch.randn(50, 16).to(dtype), torch.randint(50, (21,)), torch.randn(21)
    states = torch.randn(21, 16).to(dtype)
    exact = states.float().requires_grad_()
    logits = exact @ weight.float().T
    logps, entropies = selective_log_softmax_and_entropy(logits, targets, False, temperature)
    (logps * slopes).sum().backward()
    ours = states.requires_grad_()
    found = HeadLogps.apply(ours, weight, targets, temperature)
    (found[0] * slopes).sum().backward()
    for one, other in ((found[0], logps), (found[1], entropies), (ours.grad, exact.grad)):
        assert (one.float() - other).norm() < off * other.norm()
    assert not found[1].requires_grad
