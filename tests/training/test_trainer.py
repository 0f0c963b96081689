"""SharedPromptTrainer gives the results of trl.GRPOTrainer, while it shares prompts and skips rows."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from trl import GRPOConfig, GRPOTrainer

from r1nb.paths import DATA
from r1nb.policy.generation import merged
from r1nb.training.trainer import SharedPromptTrainer, together

SIZES = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.2,
    "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
}  # fmt: skip
SHAPES = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, tie_word_embeddings=True),
}
OTHERS = {
    "windowed": MistralConfig(**SIZES, sliding_window=16),
    "dynamic": LlamaConfig(
        **SIZES, max_position_embeddings=32,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    ),
}  # fmt: skip
# Prompts of different lengths; one occurs twice, so 4 of the 5 are distinct.
PROMPTS = ["What is 2 + 3?", "7 * 8", "Tom has 3 apples and buys 4 more. How many has he?", "9", "7 * 8"]
GROUP, LENGTH = 4, 24


def build(shape: str, **lora):
    """Return a model with an adapter that changes its output."""
    torch.manual_seed(0)
    if shape == "tiny":
        model = AutoModelForCausalLM.from_pretrained(DATA / "tiny-policy")
    else:
        model = AutoModelForCausalLM.from_config((SHAPES | OTHERS)[shape])
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **lora))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


def length_reward(completion_ids, **columns):
    """Return rewards that differ within some groups and are equal within others."""
    return [float(len(ids) % 3 == 0) for ids in completion_ids]


def make(model, tmp_path, cls=SharedPromptTrainer, reward=length_reward, **settings):
    settings = {
        "per_device_train_batch_size": GROUP * len(PROMPTS), "num_generations": GROUP, "max_steps": 3,
        "max_completion_length": LENGTH, "learning_rate": 1e-3, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "save_strategy": "no", "logging_steps": 1, "report_to": "none",
        "disable_tqdm": True, "seed": 3, "beta": 0.0, **settings,
    }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")
    rows = Dataset.from_dict({"prompt": PROMPTS})
    return cls(model, reward, GRPOConfig(str(tmp_path), **settings), rows, processing_class=tokenizer)


def sampled(trainer, seed=5):
    """Return completions of three prompts, four of each, where equal prompts are not adjacent."""
    torch.manual_seed(seed)
    ids = trainer._tokenizer(PROMPTS[:3] * GROUP, add_special_tokens=False).input_ids
    return trainer._generate_single_turn(ids, None, {}, GROUP)[0]


def trls(trainer, compute):
    """Return the result of TRL's own code on the same trainer."""
    trainer.obstacle = "a test compares"
    try:
        return compute()
    finally:
        trainer.obstacle = None


@pytest.mark.parametrize("shape", ["tiny", *SHAPES])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"generation_kwargs": {"do_sample": False}},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.2},
    ],
    ids=["sampled", "greedy", "warped"],
)
def test_the_sampled_tokens_equal_those_of_trl(tmp_path, shape, settings):
    trainer = make(build(shape), tmp_path, **settings)
    mine, theirs = sampled(trainer), trls(trainer, lambda: sampled(trainer))
    assert mine == theirs
    assert len(set(map(len, mine))) > 1 or shape != "tiny"  # the lengths differ
    figures = trainer._metrics["train"]
    assert figures["shared/prompts"] == [3]
    assert figures["shared/completions"] == [12]


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 2}, {"encoder_repetition_penalty": 1.3}, {"encoder_no_repeat_ngram_size": 2},
     {"guidance_scale": 1.5}, {"cache_implementation": "static"}, {"min_new_tokens": 9}],
    ids=str,
)  # fmt: skip
def test_decoding_that_needs_all_rows_is_left_to_transformers(tmp_path, settings):
    trainer = make(build("tiny"), tmp_path, generation_kwargs=settings)
    assert sampled(trainer) == trls(trainer, lambda: sampled(trainer))


def test_another_seed_gives_other_tokens(tmp_path):
    trainer = make(build("tiny"), tmp_path)
    assert sampled(trainer, 5) != sampled(trainer, 6)


def test_an_adapter_that_was_already_merged_stays_merged():
    model, ids = build("llama"), torch.tensor([[5, 6, 7]])
    model.merge_adapter()
    before = model(ids).logits
    with pytest.warns(UserWarning, match="merged"), merged(model):
        pass
    assert torch.equal(model(ids).logits, before)


def test_sampling_uses_the_adapter(tmp_path):
    trainer = make(build("tiny"), tmp_path)
    with_it = sampled(trainer)
    with trainer.model.disable_adapter():
        assert sampled(trainer) != with_it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_after_merging_the_original_weights_are_restored(dtype):
    model = build("qwen2").to(dtype)
    before = dict(model.named_parameters())
    bits = {name: weight.detach().clone() for name, weight in before.items()}
    ids = torch.tensor([[5, 6, 7]])
    unmerged = model(ids).logits
    with merged(model):
        assert any(weight is not before[name] for name, weight in model.named_parameters())
        assert torch.allclose(model(ids).logits, unmerged, atol=1e-4 if dtype == torch.float32 else 0.5)
    with pytest.raises(KeyboardInterrupt), merged(model):
        raise KeyboardInterrupt
    after = dict(model.named_parameters())
    assert all(after[name] is weight and torch.equal(weight, bits[name]) for name, weight in before.items())
    assert torch.equal(model(ids).logits, unmerged)


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.")
def test_a_head_that_is_tied_to_the_embedding_is_merged_without_it():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SHAPES["qwen2"])
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["lm_head", "q_proj"]))
    torch.nn.init.normal_(model.base_model.model.lm_head.lora_B["default"].weight)
    ids = torch.tensor([[5, 6, 7]])
    unmerged = model(ids).logits
    with merged(model):
        assert torch.allclose(model(ids).logits, unmerged, atol=1e-4)


def batch(trainer, rows=slice(None), dead=(), truncated=()):
    """Return a shuffled batch as TRL gives it to the loss; advantages of the `dead` rows are 0."""
    torch.manual_seed(1)
    tokenizer, count = trainer._tokenizer, GROUP * len(PROMPTS)
    order = torch.randperm(count)
    prompts = tokenizer(
        PROMPTS * GROUP, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    lengths = torch.randint(1, LENGTH + 1, (count,))
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    mask[list(truncated)] = 0
    advantages = torch.randn(count)
    advantages[list(dead)] = 0.0
    ids = torch.randint(3, 640, (count, LENGTH)) * (torch.arange(LENGTH) < lengths[:, None])
    made = {
        "prompt_ids": prompts.input_ids, "prompt_mask": prompts.attention_mask, "completion_ids": ids,
        "completion_mask": mask, "advantages": advantages,
    }  # fmt: skip
    made = {name: values[order][rows] for name, values in made.items()}
    return made | {"num_items_in_batch": made["completion_mask"].sum()}


def loss_and_gradients(trainer, inputs):
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, dict(inputs))
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def compare(trainer, inputs):
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss, gradients = loss_and_gradients(trainer, inputs)
    mine = {name: list(values) for name, values in trainer._metrics["train"].items()}
    trainer._metrics["train"].clear()
    their_loss, theirs = trls(trainer, lambda: loss_and_gradients(trainer, inputs))
    assert torch.allclose(loss, their_loss, atol=1e-5)
    assert gradients.keys() == theirs.keys()
    largest = max(gradient.abs().max() for gradient in theirs.values())
    assert largest > 1e-3 or not inputs["advantages"].any()
    for name, gradient in gradients.items():
        assert (gradient - theirs[name]).abs().max() <= 1e-5 * max(1, largest), name
    return mine, trainer._metrics["train"]


LOSSES = ["dapo", "grpo", "dr_grpo", "cispo", "bnpo", "sapo"]


@pytest.mark.parametrize("old", [False, True], ids=["first use", "second use"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("shape", ["tiny", "qwen2"])
def test_loss_and_gradients_equal_those_of_trl(tmp_path, shape, loss_type, beta, old):
    trainer = make(build(shape), tmp_path, loss_type=loss_type, beta=beta, mask_truncated_completions=True)
    inputs = batch(trainer, dead=[0, 5, 10, 15, 7], truncated=[2, 3])
    whole = [torch.cat([inputs[f"prompt_{k}"], inputs[f"completion_{k}"]], 1) for k in ("ids", "mask")]

    def score():
        return trainer._get_per_token_logps_and_entropies(trainer.model, *whole, LENGTH, batch_size=8)[0]

    with torch.no_grad():  # reference and sampling policy differ from the current one
        inputs["ref_per_token_logps"] = score()
        for name, weight in trainer.model.named_parameters():
            if "lora_A" in name:
                weight += 0.05 * torch.randn_like(weight)
        if old:
            inputs["old_per_token_logps"] = score()
            for name, weight in trainer.model.named_parameters():
                if "lora_A" in name:
                    weight += 0.05 * torch.randn_like(weight)
    mine, theirs = compare(trainer, inputs)
    assert mine.get("shared/skipped") == ([7] if beta == 0 else None)
    for name in theirs:
        if name != "entropy" or beta:
            assert mine[name] == pytest.approx(theirs[name], abs=1e-5), name


@pytest.mark.parametrize(
    "settings",
    [{"importance_sampling_level": "sequence"}, {"top_entropy_quantile": 0.5}, {"entropy_coef": 0.01},
     {"temperature": 0.7}, {"off_policy_mask_threshold": 0.5}, {"delta": 4.0}, {"loss_type": "luspo"},
     {"loss_type": "vespo"}],
    ids=str,
)  # fmt: skip
def test_other_settings_give_the_loss_of_trl(tmp_path, settings):
    trainer = make(build("llama"), tmp_path, **settings)
    mine, _ = compare(trainer, batch(trainer, dead=[1, 2, 3]))
    skips = not {"top_entropy_quantile", "entropy_coef"} & settings.keys()
    assert mine.get("shared/skipped") == ([3] if skips else None)


def test_log_probabilities_equal_those_of_trl_and_each_prompt_runs_once(tmp_path, monkeypatch):
    trainer = make(build("qwen3"), tmp_path)
    inputs = batch(trainer)
    whole = [torch.cat([inputs[f"prompt_{k}"], inputs[f"completion_{k}"]], 1) for k in ("ids", "mask")]
    ran, forward = [], trainer.model.forward
    monkeypatch.setattr(
        trainer.model, "forward", lambda **given: ran.append(given["input_ids"].shape) or forward(**given)
    )

    def score():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model, *whole, LENGTH, compute_entropy=True
        )[:2]

    mine = score()
    assert ran[0] == (4, inputs["prompt_ids"].size(1))  # 4 prompts for 20 completions
    assert sum(rows for rows, _ in ran[1:]) == 20
    for figures, theirs in zip(mine, trls(trainer, score), strict=True):
        assert torch.allclose(figures, theirs, atol=1e-5)


def test_entropy_is_the_mean_over_the_completions_that_ran(tmp_path):
    trainer, dead = make(build("llama"), tmp_path), range(10)
    mine, _ = compare(trainer, batch(trainer, dead=dead))
    trainer._metrics["train"].clear()
    inputs = batch(trainer, dead=dead)
    live = inputs["advantages"] != 0
    inputs = {name: values[live] if values.dim() else values for name, values in inputs.items()}
    assert mine["entropy"] == pytest.approx(compare(trainer, inputs)[1]["entropy"], abs=1e-5)


def test_a_batch_of_dead_groups_gives_every_weight_a_gradient_of_zero(tmp_path):
    trainer = make(build("llama"), tmp_path)
    # A gradient that is None would fail in `compare`.
    mine, theirs = compare(trainer, batch(trainer, dead=range(20)))
    assert mine["shared/skipped"] == [20]
    assert mine["entropy"] == pytest.approx(theirs["entropy"], rel=0.05)  # an estimate from 16 of the 20 rows


def test_completions_of_one_token_are_handled(tmp_path):
    trainer = make(build("llama"), tmp_path)
    inputs = batch(trainer)
    inputs["completion_ids"], inputs["completion_mask"] = (
        inputs["completion_ids"][:, :1],
        inputs["completion_mask"][:, :1],
    )
    compare(trainer, inputs)


def test_it_gives_the_results_of_trl_without_an_adapter(tmp_path):
    torch.manual_seed(0)
    trainer = make(AutoModelForCausalLM.from_config(SHAPES["llama"]), tmp_path)
    assert sampled(trainer) == trls(trainer, lambda: sampled(trainer))
    compare(trainer, batch(trainer, dead=[1, 2]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_iterations": 2}, {"mask_truncated_completions": True, "loss_type": "dr_grpo"},
     {"beta": 0.1, "loss_type": "grpo"}, {"loss_type": "cispo", "num_iterations": 2},
     {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 5}],
    ids=str,
)  # fmt: skip
def test_a_whole_training_equals_that_of_trl(tmp_path, settings):
    logs, weights = [], []
    for cls in (SharedPromptTrainer, GRPOTrainer):
        trainer = make(build("tiny"), tmp_path, cls, max_steps=4, **settings)
        trainer.train()
        logs.append([line for line in trainer.state.log_history if "loss" in line])
        weights.append([w for w in trainer.model.parameters() if w.requires_grad])
    mine, theirs = logs
    for my_line, line in zip(mine, theirs, strict=True):
        for name in ("loss", "reward", "completions/mean_length", "completions/clipped_ratio", "num_tokens"):
            assert my_line.get(name) == pytest.approx(line.get(name), abs=1e-5), name
        assert my_line["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-3)
    start = dict(build("tiny").named_parameters())
    assert any(not torch.equal(w, start[n]) for n, w in trainer.model.named_parameters() if w.requires_grad)
    for my_weight, weight in zip(*weights, strict=True):
        assert torch.allclose(my_weight, weight, atol=1e-4)
    generations = [line for line in mine if "shared/prompts" in line]
    assert generations[0]["shared/prompts"] == 4
    assert generations[0]["shared/completions"] == 20
    if not settings.get("beta"):
        assert sum(line["shared/skipped"] for line in mine) > 0


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_of_equal_rewards_is_not_run_whatever_the_rounding(tmp_path, scale):
    def reward(completions, **columns):  # only those of the first group differ
        return [0.7 + i * (i < 8) for i in range(len(completions))]

    logs, settings = [], {"num_generations": 8, "per_device_train_batch_size": 32, "scale_rewards": scale}
    for cls in (SharedPromptTrainer, GRPOTrainer):
        trainer = make(build("tiny"), tmp_path, cls, reward, max_steps=1, **settings)
        trainer.train()
        logs.append(list(trainer._logs["advantages"]))
        if cls is SharedPromptTrainer:
            line = trainer.state.log_history[0]
            assert (line["shared/skipped"], line["frac_reward_zero_std"]) == (24, 0.75)
    assert logs[0] == logs[1]  # TRL logs what it computed
    assert 0 < max(map(abs, logs[1][8:])) < 1e-2  # a rounding error


def test_a_group_stays_in_one_micro_batch():
    prompts = torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [5, 6], [1, 2], [1, 2]])
    parts = [
        {
            "prompt_ids": rows,
            "prompt_mask": torch.ones_like(rows),
            "advantages": rows[:, 0] * 10.0,
            "n": count,
        }
        for rows, count in zip(prompts.split(4), (torch.tensor(7), torch.tensor(7)), strict=True)
    ]
    found = together(parts)
    assert torch.cat([part["prompt_ids"] for part in found]).tolist() == sorted(prompts.tolist())
    assert all((part["advantages"] == part["prompt_ids"][:, 0] * 10).all() for part in found)
    assert [part["n"] for part in found] == [part["n"] for part in parts]


def test_it_evaluates_as_trl_does(tmp_path):
    found = []
    for cls in (SharedPromptTrainer, GRPOTrainer):
        trainer = make(build("tiny"), tmp_path, cls, per_device_eval_batch_size=20)
        torch.manual_seed(0)
        found.append(trainer.evaluate(Dataset.from_dict({"prompt": PROMPTS})))
    mine, theirs = found
    assert mine["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=1e-5)
    assert mine["eval_reward"] == theirs["eval_reward"]
    assert mine["eval_entropy"] == pytest.approx(theirs["eval_entropy"], abs=1e-5)
    assert mine["eval_shared/completions"] == 20


def test_it_prints_once_what_it_shares_and_skips(tmp_path, capsys):
    make(build("tiny"), tmp_path).train()
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("The policy reads 4 prompts once each for 20 completions.") == 1
    assert sum("completions teach nothing (advantage 0): skipped." in line for line in lines) == 1


@pytest.mark.parametrize(
    ("model", "settings", "why"),
    [
        (lambda: build("tiny"), {"gradient_checkpointing": True}, "gradient checkpointing drops the cache"),
        (lambda: build("tiny", lora_dropout=0.1), {}, "the model has dropout"),
        (lambda: build("tiny", use_dora=True), {}, "the adapter cannot be merged exactly"),
        (lambda: build("windowed"), {}, "the model keeps no cache that can be shared"),
        (lambda: build("dynamic"), {}, "the rotary frequencies depend on the longest sequence"),
        (lambda: checkpointed(build("llama")), {}, "gradient checkpointing drops the cache"),
        (lambda: AutoModelForCausalLM.from_config(MambaConfig(
            vocab_size=640, hidden_size=32, num_hidden_layers=1, state_size=4, pad_token_id=0, eos_token_id=2,
        )), {}, "the model keeps no cache that can be shared"),
    ],
    ids=["checkpointing", "dropout", "dora", "window", "rope", "checkpointing of the model", "mamba"],
)  # fmt: skip
def test_where_it_cannot_be_faster_the_code_of_trl_runs(tmp_path, capsys, model, settings, why):
    logs = []
    for cls in (SharedPromptTrainer, GRPOTrainer):
        trainer = make(model(), tmp_path, cls, max_steps=2, **settings)
        trainer.train()
        logs.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert logs[0] == logs[1]
    assert capsys.readouterr().out.count(f"TRL's own code samples and trains, since {why}") == 1


def checkpointed(model):
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    return model


class Quantised(torch.nn.Linear):
    """Like Linear4bit of bitsandbytes, a subclass of Linear."""


def test_weights_that_are_quantised_are_never_merged(tmp_path, capsys):
    model = build("llama")
    for layer in model.modules():
        if hasattr(layer, "base_layer"):
            layer.base_layer.__class__ = Quantised
    make(model, tmp_path)
    assert "since the adapter cannot be merged exactly." in capsys.readouterr().out


def test_with_vllm_tools_images_or_several_processes_the_code_of_trl_runs(tmp_path, monkeypatch):
    from r1nb.training.trainer import _obstacle

    trainer = make(build("tiny"), tmp_path)
    assert _obstacle(trainer) is None
    for name, value, why in [
        ("use_vllm", True, "vLLM"),
        ("tools", [len], "tools"),
        ("_is_vlm", True, "images"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(trainer, name, value)
            assert why in _obstacle(trainer)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    assert "several processes" in _obstacle(trainer)
