"""The real Unsloth on its CPU backend, with the code that a GPU run uses: `make test-unsloth`.

vLLM, the fused kernels and Unsloth's GRPOTrainer (its sampler, its loss) need a GPU and are not tested here:
on the CPU backend SharedPromptTrainer is a subclass of TRL's own.
"""

import ast
import dataclasses
import inspect
import signal
from pathlib import Path

import pytest
import torch
import unsloth
from bitsandbytes.functional import has_avx512bf16
from families import FAMILIES, odd_reward, recipe_of, write_copy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, TrainerCallback
from trl import GRPOConfig

from r1nb.errors import UserError
from r1nb.evaluation import accuracy
from r1nb.evaluation.proof import prove
from r1nb.machine.hardware import LADDER
from r1nb.paths import DATA
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.trained import load_trained
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.tasks.rows import load_rows, load_splits
from r1nb.text.prompts import REASONING
from r1nb.training.callbacks import Recorder, Validation
from r1nb.training.resume import begin_run, new_run, resumable
from r1nb.training.stages import grpo_trainer

FORMS = {
    "bf16": {"dtype": "bfloat16"},
    "4-bit": {"dtype": "bfloat16", "load_in_4bit": True},
}
STEPS = 5


def evaluate(policy, rows, recipe):
    return accuracy.evaluate(policy, rows, recipe.judge(), recipe.greedy, recipe.evaluation.eval_batch_size)


def adapter(policy):
    return {name: w.detach().clone() for name, w in policy.model.named_parameters() if "lora_" in name}


@pytest.fixture(params=FORMS)
def recipe(request, tmp_path):
    return load_recipe(
        "tiny-five-rewards",
        engine="unsloth",
        runs_dir=str(tmp_path / "runs"),
        max_steps=STEPS,
        per_device_train_batch_size=64,
        eval_every=2,
        validation_problems=8,
        gradient_checkpointing=True,
        use_gradient_checkpointing="unsloth",
        torch_threads=2,
        **FORMS[request.param],
    )


def test_a_run_trains_and_its_adapter_answers_the_same_in_a_fresh_process(recipe):
    train, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    policy = load_policy(recipe)
    rows = tests["test"].select(range(24))
    base = evaluate(policy, rows, recipe)
    attach_lora(policy, recipe)
    start = adapter(policy)
    run = new_run(recipe)
    trainer = grpo_trainer(
        policy, train, recipe, run.folder, [Recorder(run), Validation(run, policy, validation, recipe)]
    )
    trainer.train()
    moved = {name: float((w - start[name]).abs().max()) for name, w in adapter(policy).items()}
    assert min(moved.values()) > 0, "part of the adapter did not move"
    norms = run.series("grad_norm")[1]
    unlike = [share < 1 for share in run.series("frac_reward_zero_std")[1]]
    assert len(norms) == STEPS
    assert [norm > 0 for norm in norms] == unlike
    assert any(unlike[2:])  # also after a validation, which uses eval mode
    # A few steps change too little: amplify the adapter, so that the answers differ from the base's.
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.mul_(20)
    policy.save_adapter(run.adapter)
    trained = evaluate(policy, rows, recipe)
    proof = prove(run, rows, trained, base)
    # The fresh process merges the adapter, and Unsloth does not: in bfloat16 that is rounded otherwise.
    assert proof.same_as_trained >= (24 if policy.model.dtype == torch.float32 else 20)
    assert proof.n == 24
    assert proof.differs_from_base > 0
    again, _, _ = load_trained(run.folder)  # loaded by Unsloth
    assert [a.ids for a in evaluate(again, rows, recipe)] == [a.ids for a in trained]


def change_adapter(policy, size: float) -> None:
    """Give the adapter's B matrices random weights of this size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(size * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "base"])
def test_the_canary_tells_whether_the_adapter_or_the_base_is_sampled(recipe, adapter, capsys):
    recipe.grpo.update(max_steps=5, per_device_train_batch_size=16, learning_rate=1e-4)
    policy, rows = load_policy(recipe), load_rows("bundled", "train")
    attach_lora(policy, recipe)
    change_adapter(policy, 0.4)
    trainer = grpo_trainer(policy, rows, recipe, new_run(recipe).folder)
    sample = trainer._generate_single_turn

    def without_adapter(*args, **kwargs):
        with trainer.model.disable_adapter():
            return sample(*args, **kwargs)

    if adapter:
        trainer.train()
    else:
        trainer._generate_single_turn = without_adapter
        with pytest.raises(UserError, match=r"from the base model .* trl [\d.]+, unsloth [\d.]+, transf"):
            trainer.train()
    assert trainer.canary.verdict == ("adapter" if adapter else "base")
    assert "checks could not tell" not in capsys.readouterr().out


class InterruptAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_resumes_and_ends_like_an_undisturbed_run(recipe, tmp_path):
    recipe.grpo.update(max_steps=3, per_device_train_batch_size=16)

    def train(folder, *callbacks):
        recipe.output.runs_dir = str(tmp_path / folder)
        rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]
        policy = load_policy(recipe)
        run = begin_run(recipe, rows)
        attach_lora(policy, recipe)
        trainer = grpo_trainer(policy, rows, recipe, run.folder, [Recorder(run), *callbacks])
        with resumable(trainer, run) as checkpoint:
            trainer.train(resume_from_checkpoint=checkpoint)
        return run, adapter(policy)

    _, undisturbed = train("whole")
    with pytest.raises(UserError, match="Stopped after step 2 of 3"):
        train("cut", InterruptAt(1))
    run, resumed = train("cut")
    assert [line["step"] for line in run.history() if "resumed" in line] == [2]
    assert run.series("reward")[0] == [1, 2, 3]
    off = max(float((weight - undisturbed[name]).abs().max()) for name, weight in resumed.items())
    assert off <= (1e-4 if recipe.model.load_in_4bit else 0)  # 2e-6 was measured with 4-bit weights


@pytest.fixture
def model_folder(tmp_path):
    """Return a Llama with random weights, wide enough for bitsandbytes to repack (unlike the tiny policy)."""
    shape = {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 640,
    }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-policy")
    config = LlamaConfig(**shape, eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    "guarded",
    [
        True,
        pytest.param(False, marks=pytest.mark.skipif(not has_avx512bf16(), reason="no AVX512-BF16 here")),
    ],
)
def test_generating_in_eval_mode_does_not_lose_the_gradient(model_folder, guarded):
    """bitsandbytes repacks 4-bit weights on CPUs with AVX512-BF16; the transformers engine prevents it."""
    recipe = load_recipe("tiny-cpu", model_name=model_folder, load_in_4bit=True, dtype="bfloat16")
    policy = load_policy(recipe)
    if not guarded:
        for module in policy.model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = True
    attach_lora(policy, recipe)
    prompt = load_rows("bundled", "train")[0]["prompt"]
    policy.generate([prompt], Sampling(8))
    policy.model.train()
    ids = torch.tensor([policy.tokenizer("12+3=15").input_ids])
    policy.model(input_ids=ids, labels=ids).loss.backward()
    gradients = [w.grad for name, w in policy.model.named_parameters() if "lora_B" in name]
    arrived = [gradient is not None and float(gradient.norm()) > 0 for gradient in gradients]
    assert all(arrived) == guarded  # without the guard, most are lost silently


@pytest.mark.parametrize("loaded", [False, True], ids=["as trained", "loaded"])
def test_merged_weights_answer_like_the_adapter(recipe, tmp_path, loaded):
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    change_adapter(policy, 0.1)
    if loaded:
        policy, _, _ = load_trained(policy.save_adapter(tmp_path / "adapter"))
    elif recipe.model.load_in_4bit:  # Unsloth can do this on a GPU only
        with pytest.raises(UserError, match="could not be written: Unsloth"):
            save_merged(policy, tmp_path / "merged")
        return
    prompts = load_rows("bundled", "validation")["prompt"][:24]
    ours = [c.ids for c in policy.generate(prompts, Sampling(40))]
    assert ours != [c.ids for c in policy.generate(prompts, Sampling(40), adapter=False)]
    folder = save_merged(policy, tmp_path / "merged")
    if recipe.model.load_in_4bit:  # on a CPU wrongly unpacked: tested in vllm_cpu
        assert (folder / "model.safetensors").is_file()
        return
    merged, _, _ = load_trained(folder)
    theirs = [c.ids for c in merged.generate(prompts, Sampling(40))]
    # Merging rounds the sum of base and adapter to 16 bits, so a few answers may differ.
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 18
    with pytest.raises(UserError, match="holds files already"):
        save_merged(policy, folder)


def replaced_defaults():
    """Return the defaults of GRPOConfig that Unsloth replaces on a GPU, read from its source."""
    source = ast.parse((Path(inspect.getfile(unsloth)).parent / "models" / "rl.py").read_text())
    found = {}
    for node in ast.walk(source):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "replacements":
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
            if any(getattr(key, "value", None) in ("learning_rate", "loss_type") for key in keys):
                value = ast.literal_eval(node.value)
                if value != {"loss_type": "nll"}:  # this one is for SFT
                    found |= value
    assert {"learning_rate", "optim", "beta", "loss_type"} <= set(found)
    return found | {"warmup_steps": 0.1}


@pytest.mark.parametrize("name", [*LADDER, "llama31-8b-seed"])
def test_a_gpu_recipe_sets_every_value_that_unsloth_would_replace(name):
    fields = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    set_by_r1nb = {"output_dir", "bf16", "fp16"}
    of_no_effect = {
        "per_device_eval_batch_size", "eval_accumulation_steps",  # the trainer never evaluates
        "generation_kwargs",  # {} instead of None
        "include_num_input_tokens_seen",  # False instead of "no"
        "router_aux_loss_coef",  # only for mixtures of experts
    }  # fmt: skip
    replaced = {
        key
        for key, value in replaced_defaults().items()
        if key in fields and fields[key] is not value and fields[key] != value
    }
    assert "learning_rate" in replaced
    left = replaced - set(load_recipe(name).grpo) - set_by_r1nb - of_no_effect
    assert not left


@pytest.mark.parametrize("name", FAMILIES)
def test_todays_models_train_and_load_their_adapter(name, tmp_path):
    write_copy(name, tmp_path / "model")
    recipe = recipe_of(
        FAMILIES[name], tmp_path / "model", tmp_path / "runs", engine="unsloth", dtype="bfloat16",
        gradient_checkpointing=True, use_gradient_checkpointing="unsloth",
    )  # fmt: skip
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    start = adapter(policy)
    assert not any("vision" in part for part in start)
    rows = load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]
    trainer = grpo_trainer(policy, rows.select(range(8)), recipe, tmp_path / "run")
    trainer.reward_funcs = [odd_reward] * len(trainer.reward_funcs)
    trainer.train()
    assert not any(weight.equal(start[part]) for part, weight in adapter(policy).items())
    prompts = [REASONING.build_messages("How much is 7 plus 5?")]
    trained = policy.generate(prompts, Sampling(6))
    policy.save_adapter(tmp_path / "adapter")
    again = load_policy(recipe)
    again.load_adapter(tmp_path / "adapter", REASONING)
    assert again.generate(prompts, Sampling(6)) == trained
