"""The code that explains GRPO gives the same results as TRL for the same group."""

import json

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from r1nb.machine.configs import grpo_config
from r1nb.paths import DATA
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.tasks.rows import load_splits
from r1nb.text.prompts import REASONING, format_prompt
from r1nb.training.loss import group_advantages, grpo_loss
from r1nb.training.resume import new_run

GROUP = json.loads((DATA / "samples/group.json").read_text())


@pytest.fixture
def policy(tiny_recipe):
    policy = load_policy(tiny_recipe)
    attach_lora(policy, tiny_recipe)
    return policy


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_loss_and_gradients_equal_those_of_trl(policy, tiny_recipe, tmp_path, loss_type, beta):
    rows, *_ = load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)
    settings = tiny_recipe.grpo | {"loss_type": loss_type, "beta": beta, "report_to": "none"}
    trainer = GRPOTrainer(
        model=policy.model, processing_class=policy.tokenizer, reward_funcs=tiny_recipe.reward_funcs(),
        args=GRPOConfig(output_dir=str(tmp_path), **settings), train_dataset=rows,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    start = policy.tokenizer(
        format_prompt(policy.tokenizer, REASONING.build_messages(GROUP["question"]))
    ).input_ids
    texts = [text + policy.tokenizer.eos_token for text in GROUP["completions"]]
    ends = policy.tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    prompts = torch.tensor([start] * len(texts))
    whole = torch.cat([prompts, ends.input_ids], dim=1)
    attention = torch.cat([torch.ones_like(prompts), ends.attention_mask], dim=1)

    def log_probabilities():
        kept = ends.input_ids.shape[1]
        return trainer._get_per_token_logps_and_entropies(trainer.model, whole, attention, kept)[0]

    with torch.no_grad():  # three different policies: reference, sampling, current
        reference = log_probabilities()
        torch.manual_seed(0)
        for _ in range(2):
            old = log_probabilities()
            for name, weight in trainer.model.named_parameters():
                if "lora_" in name:
                    weight += 0.03 * torch.randn_like(weight)
    funcs, gold = tiny_recipe.reward_funcs(), GROUP["answer"]
    rewards = [sum(func.score(text, gold) for func in funcs) for text in GROUP["completions"]]
    advantages = group_advantages(torch.tensor(rewards))
    trainer.model.train()
    inputs = {
        "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": ends.input_ids,
        "completion_mask": ends.attention_mask, "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference, "num_items_in_batch": ends.attention_mask.sum(),
    }  # fmt: skip
    theirs = trainer._compute_loss(trainer.model, inputs)
    now = log_probabilities()
    length = tiny_recipe.grpo["max_completion_length"]
    ours = grpo_loss(now, old, reference, ends.attention_mask, advantages, loss_type, length, beta=beta)
    ratio = (now - old).exp()[ends.attention_mask.bool()]
    assert ((ratio < 0.8) | (ratio > 1.2)).any()  # some ratios are clipped
    assert not torch.allclose(old, reference)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert abs(ours.item()) > 1e-3
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    gradients = [torch.autograd.grad(loss, weights) for loss in (ours, theirs)]
    for mine, its in zip(*gradients, strict=True):
        assert torch.allclose(mine, its, atol=1e-5)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_the_advantages_equal_those_of_trl(policy, tiny_recipe, scale):
    """TRL logs them in a real step, in which the rewards of some groups differ."""
    tiny_recipe.grpo |= {"scale_rewards": scale, "max_steps": 1, "per_device_train_batch_size": 64}
    run = new_run(tiny_recipe)
    rows, *_ = load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)
    GRPOTrainer(
        model=policy.model, processing_class=policy.tokenizer, reward_funcs=tiny_recipe.reward_funcs(),
        args=grpo_config(tiny_recipe, run.folder), train_dataset=rows,
    ).train()  # fmt: skip
    log = run.completions(1)
    totals = torch.tensor(sum(log[name] for name in tiny_recipe.rewards).to_numpy(), dtype=torch.float32)
    groups = totals.view(-1, tiny_recipe.group_size)
    assert (groups.std(1) > 0).any()
    expected = group_advantages(groups, scale=scale == "group").flatten()
    assert torch.allclose(torch.tensor(log["advantage"].to_numpy(), dtype=torch.float32), expected, atol=1e-5)


def test_an_unknown_loss_is_named():
    with pytest.raises(ValueError, match="loss_type = 'ppo'"):
        grpo_loss(*[torch.ones(2, 3)] * 4, torch.ones(2), "ppo", 3)


def test_the_code_fits_on_one_page():
    import ast
    import inspect

    from r1nb.training import loss

    code = ast.unparse(ast.parse(inspect.getsource(loss)))
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(code))
                  if isinstance(node, ast.Module | ast.FunctionDef)]  # fmt: skip
    assert len(code.splitlines()) - sum(text.count("\n") + 1 for text in docstrings) <= 40
