"""The canary: broken samplers stop the training, healthy ones do not, and the training stays the same."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from test_trainer import GROUP, build, make
from transformers import AutoModelForCausalLM

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.training.canary import ADAPTER, BASE, ENTROPY, FIGURE, UNDECIDED, Canary, Found

SHARES = SimpleNamespace(shared_weights=True)  # Unsloth's engine, which needs a GPU
STOPPED = r"After step \d+ the completions are sampled from the base model .* trl \d.*, transformers \d"
PATHS = {
    "float32": {},
    "trained further": {"beta": 0.04},  # TRL keeps a copy of the adapter as it was
    "without the sampler's figures": {
        "gradient_checkpointing": True,
        "max_steps": 25,
        "mask_truncated_completions": True,
    },
}


def sampled_by_base(trainer):
    """Break the trainer as the faulty versions did: the adapter is off while it samples, and only then."""
    sample = trainer._generate_single_turn

    def broken(*args, **kwargs):
        with trainer.model.disable_adapter():
            return sample(*args, **kwargs)

    trainer._generate_single_turn = broken
    return trainer


def train(model, tmp_path, **settings):
    trainer = make(model, tmp_path, **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
def test_completions_of_the_base_model_stop_the_training(tmp_path, settings):
    trainer = sampled_by_base(make(build("tiny"), tmp_path, **settings))
    with pytest.raises(UserError, match=STOPPED) as error:
        trainer.train()
    assert "unsloth" not in str(error.value)
    assert str(error.value).endswith("install r1nb again, which takes versions that fit.")
    assert trainer.canary.verdict == BASE


def test_completions_of_the_base_model_in_bfloat16_stop_the_training(tmp_path):
    trainer = sampled_by_base(make(build("tiny").bfloat16(), tmp_path, bf16=True, max_steps=17))
    with pytest.raises(UserError, match=STOPPED):
        trainer.train()


@pytest.mark.parametrize(
    "settings", [*PATHS.values(), {"bf16": True, "max_steps": 9}], ids=[*PATHS, "bfloat16"]
)
def test_completions_of_the_adapter_are_recognized(tmp_path, capsys, settings):
    model = build("tiny").bfloat16() if settings.get("bf16") else build("tiny")
    trainer = train(model, tmp_path, **settings)
    assert trainer.canary.verdict == ADAPTER
    assert "checks" not in capsys.readouterr().out


def test_the_difference_between_sampler_and_trainer_is_logged(tmp_path):
    lines = train(build("tiny"), tmp_path, temperature=0.7).state.log_history
    figures = [
        (line["step"], line[f"{FIGURE}/mean"], line[f"{FIGURE}/max"])
        for line in lines
        if f"{FIGURE}/mean" in line
    ]
    assert [step for step, *_ in figures] == [2, 3]  # the steps of 3 that follow one step or two
    assert all(0 < mean < most < 1e-4 for _, mean, most in figures)


def listen(trainer) -> list[Found]:
    """Return a list that gets what each check finds."""
    found, hear = [], trainer.canary.hear
    trainer.canary.hear = lambda one, *settings: [found.append(one), hear(one, *settings)]
    return found


def test_a_line_for_several_steps_holds_the_mean_over_their_checks(tmp_path):
    trainer = make(build("tiny"), tmp_path, logging_steps=3)
    found = listen(trainer)
    trainer.train()
    line = trainer.state.log_history[0]
    assert line[f"{FIGURE}/mean"] == sum(one.to_adapter for one in found) / 2
    assert line[ENTROPY] == sum(one.entropy for one in found) / 2
    assert line[ENTROPY] == pytest.approx(line["entropy"], rel=0.3)


def test_truncated_completions_are_compared_too(tmp_path):
    """TRL masks their tokens; without them a policy that writes more than the base would look like it."""
    settings = {"max_completion_length": 2, "mask_truncated_completions": True, "pad_to_multiple_of": 8}
    trainer = make(build("tiny"), tmp_path, gradient_checkpointing=True, **settings)
    found = listen(trainer)
    trainer.train()
    assert [one.tokens for one in found] == [2 * GROUP, 2 * GROUP]


MANY = {"gradient_accumulation_steps": 8, "steps_per_generation": 1, "per_device_train_batch_size": GROUP}


def test_checks_become_rare_if_a_step_has_many_batches(tmp_path):
    assert train(build("tiny"), tmp_path, **MANY).canary.checks == 4  # of batches 1, 2, 4 and 8 of 15


def test_the_training_is_the_same_with_and_without_a_canary(tmp_path, monkeypatch):
    found = []
    for _ in range(2):
        trainer = train(build("tiny", lora_dropout=0.1), tmp_path, max_steps=5)
        found.append([*trainer.model.parameters(), torch.get_rng_state()])
        assert trainer.canary.checks == (0 if len(found) == 2 else 3)
        monkeypatch.setattr(Canary, "check", lambda *given: None)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_model_without_an_adapter_is_compared_with_its_sampler_only(tmp_path, capsys):
    trainer = train(AutoModelForCausalLM.from_pretrained(DATA / "tiny-policy"), tmp_path)
    assert sum(f"{FIGURE}/max" in line for line in trainer.state.log_history) == 2
    assert trainer.canary.checks == 0
    assert "checks" not in capsys.readouterr().out


def test_a_doubt_is_printed_once(tmp_path, capsys):
    model = build("tiny")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    trainer = make(model, tmp_path, learning_rate=0.0)
    for _ in range(2):
        trainer.train()
    said = "2 checks could not tell whether the adapter or the base model writes the completions"
    assert capsys.readouterr().out.count(said) == 1
    assert trainer.canary.verdict == UNDECIDED


def test_a_doubt_is_printed_before_the_training_ends(tmp_path, capsys):
    batches = []

    def reward(completion_ids, **columns):
        batches.append(completion_ids)
        if len(batches) == 26:
            raise KeyboardInterrupt
        return [0.0] * len(completion_ids)

    trainer = make(build("tiny"), tmp_path, reward=reward, max_steps=6, **MANY)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert "6 checks could not tell" in capsys.readouterr().out


def test_what_another_program_wrote_is_not_checked(tmp_path):
    trainer = make(build("tiny"), tmp_path)

    def rollout(prompts, trainer):
        ids = trainer._tokenizer(["7 * 8 = 56"] * len(prompts), add_special_tokens=False).input_ids
        return {"prompt_ids": ids, "completion_ids": ids, "logprobs": None}

    trainer.rollout_func = rollout
    trainer.train()
    assert trainer.canary.checks == 0


def logps(to_adapter, to_base, apart=0.2):
    return Found(100, apart, 0.0, 100, to_adapter, to_base)


def tokens(gain, apart=0.2):
    return Found(100, apart, gain)


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([logps(1e-6, 1e-6)] * 9, UNDECIDED),
        ([logps(0.01, 0.02)] * 9, UNDECIDED),  # the adapter differs no more than the sampler's noise
        ([logps(0.8, 0.2)] * 9, UNDECIDED),  # rounding to 16 bits hides a part of the adapter
        ([logps(1e-6, 1e-3)], ADAPTER),
        ([logps(1e-3, 1e-6)], UNDECIDED),
        ([logps(1e-3, 1e-6)] * 2, BASE),
        ([logps(1e-3, 1e-6), logps(0.01, 0.01), logps(1e-3, 1e-6)], UNDECIDED),
        ([logps(0.01, 0.2)] * 9 + [logps(0.2, 0.01)] * 2, BASE),  # the fault begins in the run
        ([tokens(-20.0)], UNDECIDED),
        ([tokens(-20.0)] * 2, BASE),
        ([tokens(20.0)] * 2, ADAPTER),
        ([tokens(20.0)] * 99 + [tokens(-20.0)] * 3, BASE),
        ([tokens(-20.0, apart=0.05)] * 9, UNDECIDED),
    ],
)  # fmt: skip
def test_a_verdict_needs_a_clear_difference(checks, verdict):
    canary = Canary()
    for found in checks:
        canary.hear(found)
    assert canary.verdict == verdict
    assert bool(canary.doubt) == (verdict == UNDECIDED)


@pytest.mark.parametrize(("engine", "verdict"), [(None, UNDECIDED), (SHARES, BASE)])
def test_vllm_that_shares_the_weights_needs_a_smaller_difference(tmp_path, monkeypatch, engine, verdict):
    trainer = make(build("tiny"), tmp_path)
    trainer.model.vllm_engine = engine
    # What vLLM returns in bfloat16: 0.03 nats a token is its noise, and the adapter is 0.25 from the base.
    found = Found(2400, 0.25, 0.0, 2400, 0.25, 0.03)
    monkeypatch.setattr("r1nb.training.canary.compare", lambda *given: found)
    with pytest.raises(UserError, match=STOPPED) if verdict else nullcontext():
        trainer.train()
    assert trainer.canary.verdict == verdict


def test_tokens_from_a_part_of_the_distribution_decide_nothing():
    canary = Canary()
    for _ in range(9):
        canary.hear(tokens(-20.0), whole=False)
    assert canary.verdict == UNDECIDED
