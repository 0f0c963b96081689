"""The real vLLM on a CPU: adapters and exports of r1nb give the same answers in it (`make test-vllm`).

The answers are greedy, to test problems, and in fp32 unless a test says otherwise.
"""

import itertools

import pytest
import torch
from bitsandbytes.functional import get_4bit_type
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.policy import Completion, Policy
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.rewards.grading import grade, summarize
from r1nb.tasks.rows import load_rows
from r1nb.text.prompts import format_prompt
from r1nb.training.callbacks import Recorder
from r1nb.training.canary import FIGURE
from r1nb.training.resume import new_run
from r1nb.training.stages import grpo_trainer, sft, solution_examples

GREEDY = Sampling(112)  # tokens per completion, as in the recipe


def recipe_for(folder, **changes):
    recipe = load_recipe(
        "tiny-five-rewards",
        runs_dir=str(folder / "runs"),
        max_steps=3,
        per_device_train_batch_size=16,
        save_strategy="no",
        torch_threads=1,
        **changes,
    )
    recipe.sft.update(
        max_steps=30, learning_rate=5e-3, per_device_train_batch_size=16, use_cpu=True,
        gradient_checkpointing=False, save_strategy="no", seed=1, bf16=False,
    )  # fmt: skip
    return recipe


def train(policy, recipe):
    """Train the adapter of the policy for a few steps of GRPO, and return the run."""
    run = new_run(recipe)
    trainer = grpo_trainer(policy, load_rows("bundled", "train"), recipe, run.folder, [Recorder(run)])
    trainer.train()
    return run


def teach(recipe, folder):
    """Return a policy whose adapter was trained by r1nb: a short SFT start, then GRPO."""
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    sft(policy, solution_examples(load_rows("bundled", "train"), recipe.layout), recipe, folder)
    train(policy, recipe)
    return policy


def serve(model, **settings):
    return LLM(str(model), enforce_eager=True, max_model_len=320, **{"dtype": "float32"} | settings)


def answers(llm, tokenizer, prompts, adapter=None):
    """Return the ids of vLLM's greedy answers, without the end token."""
    texts = [format_prompt(tokenizer, prompt) for prompt in prompts]
    outputs = llm.generate(
        [{"prompt_token_ids": tokenizer(text, add_special_tokens=False).input_ids} for text in texts],
        sampling_params=SamplingParams(temperature=0, max_tokens=GREEDY.max_tokens),
        lora_request=adapter,
        use_tqdm=False,
    )
    ids = [tuple(output.outputs[0].token_ids) for output in outputs]
    return [one[:-1] if one[-1] == tokenizer.eos_token_id else one for one in ids]


def ids_of(completions):
    return [completion.ids for completion in completions]


@pytest.fixture(scope="module")
def prompts():
    return load_rows("bundled", "test")["prompt"][:48]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def trained(folder):
    return teach(recipe_for(folder), folder / "trained")


@pytest.fixture(scope="module")
def adapter(trained, folder):
    return trained.save_adapter(folder / "adapter")


@pytest.fixture(scope="module")
def base_engine():
    """Return an engine. Its tests come first: a later engine deletes vLLM's global state when it ends."""
    return serve(DATA / "tiny-policy", enable_lora=True, max_lora_rank=16)


@pytest.fixture(scope="module")
def number():
    """Return a counter, because vLLM identifies adapters by number and never loads a number twice."""
    return itertools.count(1)


def test_a_trained_adapter_answers_in_vllm_as_in_peft(base_engine, trained, adapter, prompts, number):
    base = ids_of(trained.generate(prompts, GREEDY, adapter=False))
    ours = ids_of(trained.generate(prompts, GREEDY))
    assert sum(a != b for a, b in zip(base, ours, strict=True)) > len(prompts) / 2
    assert answers(base_engine, trained.tokenizer, prompts) == base
    request = LoRARequest("trained", next(number), str(adapter))
    assert answers(base_engine, trained.tokenizer, prompts, request) == ours


@pytest.fixture
def served(trained, base_engine, number, monkeypatch):
    """Return the trained policy with the methods that Unsloth adds: generate with vLLM, pass adapters."""
    unsloth = {
        "fast_generate": base_engine.generate,
        "save_lora": trained.model.save_pretrained,
        "load_lora": lambda folder: LoRARequest(str(n := next(number)), n, folder),
    }
    for name, method in unsloth.items():
        monkeypatch.setattr(trained.model, name, method, raising=False)
    settings = trained.model_settings.model_copy(update={"fast_inference": True})
    return Policy(trained.model, trained.tokenizer, settings)


@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("prefill", ["", "<reasoning>\n"])
def test_generating_with_vllm_gives_the_same_completions(served, trained, prompts, adapter, prefill):
    asked = {"adapter": adapter, "prefill": prefill}
    ours = trained.generate(prompts, GREEDY, **asked)
    assert served.generate(prompts, GREEDY, **asked) == ours
    assert all(completion.text.startswith(prefill) for completion in ours)


def test_a_completion_that_is_cut_off_is_marked(served, trained, prompts):
    lengths = sorted(len(ids) for ids in ids_of(trained.generate(prompts, GREEDY)))
    limit = lengths[len(lengths) // 2]  # some completions are shorter, some longer, one has this length
    ours = trained.generate(prompts, Sampling(limit))
    assert 0 < sum(completion.cut for completion in ours) < len(prompts)
    assert served.generate(prompts, Sampling(limit)) == ours


def test_a_completion_ends_at_any_end_token(served, trained, prompts, monkeypatch):
    tokenizer = trained.tokenizer
    newline = tokenizer("\n", add_special_tokens=False).input_ids
    assert len(newline) == 1
    ends = [tokenizer.eos_token_id, *newline]
    monkeypatch.setattr(trained.model.generation_config, "eos_token_id", ends)
    ours = trained.generate(prompts, GREEDY)
    assert not any("\n" in completion.text or completion.cut for completion in ours)
    assert served.generate(prompts, GREEDY) == ours


def test_vllm_uses_the_current_weights_of_the_adapter(served, trained, prompts, monkeypatch):
    before = served.generate(prompts, GREEDY)
    for name, weight in trained.model.named_parameters():
        if "lora_B" in name:
            monkeypatch.setattr(weight, "data", torch.zeros_like(weight))
    now = served.generate(prompts, GREEDY)
    assert now != before
    assert now == trained.generate(prompts, GREEDY, adapter=False)


def test_vllm_samples_with_a_temperature(served, prompts):
    greedy = served.generate(prompts, GREEDY)
    sampled = served.generate(prompts, Sampling(GREEDY.max_tokens, 1.0))
    assert sampled != greedy
    assert served.generate(prompts, Sampling(GREEDY.max_tokens, 1.0, 1e-6)) == greedy


def test_the_merged_export_answers_in_vllm_as_the_adapter_does(trained, prompts, tmp_path):
    engine = serve(save_merged(trained, tmp_path / "merged"))
    assert answers(engine, trained.tokenizer, prompts) == ids_of(trained.generate(prompts, GREEDY))


@pytest.fixture(scope="module")
def exact_nf4():
    """Replace bitsandbytes' dequantize_4bit: on a CPU it is wrong unless rows are multiples of 64, its block.

    The tiny policy has rows of 160 and 432 weights. Each block is scaled by its own maximum, as on a GPU.
    """
    code = get_4bit_type("nf4", device="cpu")

    def dequantize(packed, absmax, blocksize, quant_type, shape, dtype):
        numbers = torch.stack([packed >> 4, packed & 15], -1).view(-1, blocksize).int()
        return (code[numbers] * absmax[:, None]).view(shape).to(dtype)

    library = torch.library.Library("bitsandbytes", "IMPL")
    library.impl("dequantize_4bit", dequantize, "CPU", allow_override=True)
    return library  # the kernel is replaced while this object exists


@pytest.fixture(scope="module")
def rows():
    return load_rows("bundled", "test").select(range(150))


@pytest.fixture(scope="module")
def trained_in_4bit(exact_nf4, folder):
    return teach(recipe_for(folder, load_in_4bit=True), folder / "trained-4bit")


def test_the_merged_export_of_a_4bit_policy_keeps_its_answers(trained_in_4bit, rows, folder, tmp_path):
    """The adapter was trained on the 4-bit weights; other ways of merging change more answers."""
    policy, recipe = trained_in_4bit, recipe_for(folder)
    prompts = rows["prompt"]
    merged = save_merged(policy, tmp_path / "merged")
    full = load_policy(recipe).model
    adapter = policy.save_adapter(tmp_path / "adapter")
    onto_full = PeftModel.from_pretrained(full, adapter).merge_and_unload()
    onto_full.save_pretrained(tmp_path / "onto-full")
    policy.tokenizer.save_pretrained(tmp_path / "onto-full")
    in_4bit = load_policy(recipe_for(folder, load_in_4bit=True))

    trained = policy.generate(prompts, GREEDY)
    ways = {
        "4 bits and adapter, not merged": ids_of(trained),
        "merged, fp32": answers(serve(merged), policy.tokenizer, prompts),
        "merged, bf16": answers(serve(merged, dtype="bfloat16"), policy.tokenizer, prompts),
        "onto unquantised, fp32": answers(serve(tmp_path / "onto-full"), policy.tokenizer, prompts),
    }
    in_4bit.load_adapter(adapter)
    in_4bit.model = in_4bit.model.merge_and_unload()  # quantises the sum again
    ways["merged in 4 bits"] = ids_of(in_4bit.generate(prompts, GREEDY))

    same, strict, lenient = {}, {}, {}
    print()
    for way, ids in ways.items():
        completions = [Completion(policy.tokenizer.decode(one), one, cut=False) for one in ids]
        summary = summarize(grade(rows[:], completions, recipe.judge()))
        same[way] = sum(a == b for a, b in zip(ids, ids_of(trained), strict=True)) / len(ids)
        strict[way], lenient[way] = summary["strict"], summary["lenient"]
        print(f"{way:32} same {same[way]:.3f}  strict {strict[way]:.3f}  lenient {lenient[way]:.3f}")

    asked = "4 bits and adapter, not merged"
    assert strict[asked] > 0.5, "the policy is too weak to show a difference"
    assert same["merged, fp32"] >= 0.98  # same weights; only the order of sums differs
    assert same["merged, bf16"] >= 0.90  # rounding to 8 bits of mantissa decides near ties
    for way, margin in {"merged, fp32": 0.01, "merged, bf16": 0.03}.items():
        assert abs(strict[way] - strict[asked]) <= margin
        assert abs(lenient[way] - lenient[asked]) <= margin
    assert same["merged, fp32"] > max(same["onto unquantised, fp32"], same["merged in 4 bits"])


def test_a_base_that_is_stored_in_4_bits_can_be_exported_too(trained_in_4bit, prompts, folder, tmp_path):
    """For example the bnb-4bit models of the Hub, whose 16-bit weights are not available."""
    base = load_policy(recipe_for(folder, load_in_4bit=True))
    for part in (base.model, base.tokenizer):
        part.save_pretrained(tmp_path / "base")
    recipe = recipe_for(folder, load_in_4bit=True, model_name=str(tmp_path / "base"))
    policy = load_policy(recipe)
    policy.load_adapter(trained_in_4bit.save_adapter(tmp_path / "adapter"))
    ours = ids_of(policy.generate(prompts, GREEDY))
    assert ours == ids_of(trained_in_4bit.generate(prompts, GREEDY))
    engine = serve(save_merged(policy, tmp_path / "merged"))
    assert answers(engine, policy.tokenizer, prompts) == ours


@pytest.fixture
def colocated(folder, adapter, monkeypatch):
    """Return a trained policy, and a recipe with which vLLM samples in the same process as it trains."""

    def keep_weights(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    # Otherwise vLLM would repack its weights for the CPU, and could not be given new ones.
    monkeypatch.setattr("vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm", keep_weights)
    recipe = recipe_for(folder, use_vllm=True, vllm_mode="colocate", vllm_max_model_length=320)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    set_peft_model_state_dict(policy.model, load_peft_weights(str(adapter)))
    return policy, recipe


def test_grpo_trains_with_vllm_in_the_same_process(colocated, capsys):
    """In TRL's colocate mode, the weights are copied to vLLM before each step, and vLLM samples with them."""
    policy, recipe = colocated
    start = {n: w.detach().clone() for n, w in policy.model.named_parameters() if "lora_" in n}
    run = train(policy, recipe)
    steps = [1, 2, 3]
    assert run.series("reward")[0] == steps
    for step in steps:
        log = run.completions(step)
        assert len(log) == recipe.batch_size
        assert (log["tokens"] > 0).all()
        assert (log["total"] == log[list(recipe.rewards)].sum(axis=1)).all()
    assert all(not torch.equal(w, start[n]) for n, w in policy.model.named_parameters() if n in start)
    # vLLM (in bf16) and the adapter give the samples similar log-probabilities; the base's differ far more.
    assert max(run.series(f"{FIGURE}/mean")[1]) < 0.05
    assert "checks could not tell" not in capsys.readouterr().out


@pytest.mark.parametrize("correction", [True, False])
def test_vllm_that_keeps_the_weights_of_the_base_stops_the_training(colocated, monkeypatch, correction):
    policy, recipe = colocated
    recipe.grpo["vllm_importance_sampling_correction"] = correction
    monkeypatch.setattr("trl.generation.vllm_generation.VLLMGeneration.sync_weights", lambda self: None)
    said = (
        r"After step 2 the completions are sampled from the base model .* trl [\d.]+, vllm [\d.]+\S*, "
        r"transformers .* install r1nb\[gpu\] again, .* set engine=transformers and use_vllm=False"
    )
    with pytest.raises(UserError, match=said):
        train(policy, recipe)
