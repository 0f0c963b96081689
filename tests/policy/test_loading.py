"""The policy with the real libraries: formatting, adapters, and what is refused."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from datasets import Dataset
from transformers import set_seed
from trl import GRPOTrainer

from r1nb.errors import UserError
from r1nb.machine.configs import grpo_config
from r1nb.policy.adapters import check_targets
from r1nb.policy.decoding import NO_EFFECT
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.policy import Policy
from r1nb.policy.trained import load_trained
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.runs.run import CARD
from r1nb.tasks.rows import drop_long_prompts, load_rows
from r1nb.text.prompts import REASONING, THINK, format_prompt
from r1nb.training.resume import new_run
from r1nb.training.stages import grpo_trainer


@pytest.fixture
def policy(tiny_recipe):
    return load_policy(tiny_recipe)


@pytest.fixture
def prompts():
    return [REASONING.build_messages(q) for q in load_rows("bundled", "validation")["question"][:6]]


def randomize(policy, seed=0, scale=0.5):
    """Give the adapter weights that change the answers, because B starts at 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data = scale * torch.randn(weight.shape, generator=generator)


def texts(policy, prompts, **kwargs):
    return [c.text for c in policy.generate(prompts, Sampling(24), **kwargs)]


def test_trl_and_r1nb_tokenize_a_prompt_alike(policy, tiny_recipe, tmp_path, prompts):
    from trl import GRPOTrainer

    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=tiny_recipe.reward_funcs(),
        args=grpo_config(tiny_recipe, tmp_path),
        train_dataset=load_rows("bundled", "train"),
    )
    ours = [
        policy.tokenizer(format_prompt(policy.tokenizer, p), add_special_tokens=False).input_ids
        for p in prompts
    ]
    assert trainer._tokenize_prompts(prompts)[0] == ours


def copy_of_tiny(folder, template=None, **generation):
    """A copy of the tiny policy with another chat template or other values in generation_config.json."""
    from r1nb.paths import DATA

    shutil.copytree(DATA / "tiny-policy", folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | generation))
    if template:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)


OTHERS = (
    {
        "repetition_penalty": 3.0, "no_repeat_ngram_size": 2, "min_new_tokens": 20, "min_length": 400,
        "suppress_tokens": [30, 31, 32], "begin_suppress_tokens": [30], "forced_bos_token_id": 33,
        "forced_eos_token_id": 2, "bad_words_ids": [[30], [31, 32]], "guidance_scale": 2.0, "max_time": 1e-6,
        "exponential_decay_length_penalty": [3, 2.0], "sequence_bias": [[[30], -9.0]], "use_cache": False,
    },
    {"stop_strings": ["<answer>"], "return_dict_in_generate": True, "num_beams": 2, "length_penalty": 3.0},
    {
        "do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "num_return_sequences": 2,
        "min_p": 0.5, "typical_p": 0.2, "epsilon_cutoff": 0.02,
    },
)  # fmt: skip


def short_answers(policy, recipe, folder):
    """Answers of eight tokens, greedy and sampled, and completions that TRL samples."""
    prompts = [REASONING.build_messages(f"How much is {n} plus 5?") for n in range(3)]
    trainer = grpo_trainer(policy, Dataset.from_list([{"prompt": each} for each in prompts]), recipe, folder)
    ids = trainer._tokenize_prompts(prompts)[0]
    greedy, sampled = (policy.generate(prompts, Sampling(8, heat)) for heat in (0.0, 0.9) if not set_seed(1))
    return greedy, sampled, trainer._generate_single_turn(ids, None, {}, 1)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    recipe = load_recipe("tiny-cpu", max_completion_length=8, per_device_train_batch_size=8)
    return recipe, short_answers(load_policy(recipe), recipe, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("generation", OTHERS, ids=lambda generation: next(iter(generation)))
def test_a_models_generation_config_changes_no_answer(plain, tmp_path, generation, capsys):
    recipe, answers = plain
    model = copy_of_tiny(tmp_path / "model", **generation)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"model_name": model})})
    policy = load_policy(recipe)
    said = capsys.readouterr().out
    assert short_answers(policy, recipe, tmp_path / "out") == answers
    told = [name for name in generation if f" {name} = " in said]
    assert told == [name for name in generation if name not in NO_EFFECT]


def test_neutral_values_of_a_generation_config_are_not_mentioned(tmp_path, capsys):
    neutral = {
        "repetition_penalty": 1.0,
        "length_penalty": 1.0,
        "num_beams": 1,
        "do_sample": True,
        "top_p": 0.9,
    }
    load_policy(load_recipe("tiny-cpu", model_name=copy_of_tiny(tmp_path / "model", **neutral)))
    assert capsys.readouterr().out == ""


def test_a_reply_may_end_with_any_of_the_models_end_tokens(tmp_path):
    model = copy_of_tiny(tmp_path / "model", eos_token_id=[2, 20], repetition_penalty=1.5)
    policy = load_policy(load_recipe("tiny-cpu", model_name=model))
    done = policy._completion([30, 31, 20, 0, 0], "")
    assert (policy.end_tokens, done.cut, done.ids) == ([2, 20], False, (30, 31))


TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{{ 'Plainly: ' if not enable_thinking else"
    " '<think>\n' }}{% endif %}"
)


@pytest.mark.parametrize("thinks", [False, True])
def test_one_prompt_in_training_measuring_counting_and_on_the_card(tmp_path, thinks, capsys):
    recipe = load_recipe(
        "tiny-cpu", model_name=copy_of_tiny(tmp_path / "model", TEMPLATE), max_steps=1, save_steps=1,
        chat_template_kwargs={"enable_thinking": thinks}, per_device_train_batch_size=8,
        runs_dir=str(tmp_path), max_completion_length=4,
    )  # fmt: skip
    policy = load_policy(recipe)
    assert ("ends each prompt with '<think>\\n'" in capsys.readouterr().out) == thinks
    ending = "<|im_start|>assistant\n" + ("" if thinks else "Plainly: ")
    rows = load_rows("bundled", "train").select(range(8))
    prompt = format_prompt(policy.tokenizer, rows[0]["prompt"])
    assert prompt.endswith(ending)
    count = len(policy.tokenizer(prompt, add_special_tokens=False).input_ids)
    assert len(drop_long_prompts(rows.select([0]), policy.tokenizer, count, 1)) == 1
    with pytest.raises(UserError, match=f"the shortest prompt has {count} tokens"):
        drop_long_prompts(rows.select([0]), policy.tokenizer, count - 1, 1)
    attach_lora(policy, recipe)
    seen = []

    class Spy(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            seen.extend(policy.tokenizer.batch_decode(prompt_ids))
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    grpo_trainer(policy, rows, recipe, tmp_path / "out", trainer_class=Spy).train()
    assert seen
    assert set(seen) <= {format_prompt(policy.tokenizer, each) for each in rows["prompt"]}
    folder = policy.save_adapter(tmp_path / "adapter")
    assert json.loads((folder / CARD).read_text())["prompt"].endswith(ending)
    fresh = load_policy(recipe)
    fresh.load_adapter(folder)  # the card fits
    assert format_prompt(load_trained(folder)[0].tokenizer, rows[0]["prompt"]) == prompt
    other = recipe.grpo | {"chat_template_kwargs": {"enable_thinking": not thinks}}
    other = load_policy(recipe.model_copy(update={"grpo": other}))
    with pytest.raises(UserError, match="was trained with another prompt format"):
        other.load_adapter(folder)
    merged, _, _ = load_trained(save_merged(policy, tmp_path / "merged"))
    assert format_prompt(merged.tokenizer, rows[0]["prompt"]) == prompt


def test_answers_do_not_depend_on_the_rest_of_the_batch(policy, prompts):
    together = texts(policy, prompts)
    assert together == [texts(policy, [prompt])[0] for prompt in prompts]


def test_a_completion_at_the_limit_is_marked_as_cut_off(policy, prompts):
    (one,) = policy.generate(prompts[:1], Sampling(1))
    assert (len(one.ids), one.cut) == (1, True)
    prefilled = texts(policy, prompts, prefill="<reasoning>\n")
    assert all(text.startswith("<reasoning>\n") for text in prefilled)


def test_digits_are_single_tokens(policy):
    tokens = policy.tokenizer.tokenize("12*345=4140")
    assert tokens == list("12*345=4140")


def test_the_tiny_policy_is_tiny():
    from r1nb.paths import DATA

    config = json.loads((DATA / "tiny-policy" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] // config["num_attention_heads"] >= 32
    size = sum(path.stat().st_size for path in (DATA / "tiny-policy").iterdir())
    assert size < 12e6


def test_a_loaded_model_is_plain_and_can_be_trained(policy):
    assert all(weight.requires_grad for weight in policy.model.parameters())
    assert not any("lora" in name for name, _ in policy.model.named_modules())


def test_a_loaded_adapter_and_a_merged_model_answer_like_the_policy(policy, tiny_recipe, tmp_path, prompts):
    base = texts(policy, prompts)
    attach_lora(policy, tiny_recipe)
    assert texts(policy, prompts) == base  # because B = 0
    randomize(policy)
    trained = texts(policy, prompts)
    assert trained != base
    assert texts(policy, prompts, adapter=False) == base
    folder = policy.save_adapter(tmp_path / "adapter")
    again, recipe, _ = load_trained(folder)
    assert texts(again, prompts) == trained
    assert recipe.model.model_name == "tiny-policy"
    merged, _, _ = load_trained(save_merged(policy, tmp_path / "merged"))
    assert texts(merged, prompts) == trained
    assert not merged.has_adapter


def test_plain_peft_loads_the_adapter(policy, tiny_recipe, tmp_path, prompts):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from r1nb.paths import DATA

    attach_lora(policy, tiny_recipe)
    randomize(policy)
    folder = policy.save_adapter(tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-policy"
    base = AutoModelForCausalLM.from_pretrained(DATA / "tiny-policy")
    plain = PeftModel.from_pretrained(base, folder)
    for (name, ours), theirs in zip(
        sorted(policy.model.state_dict().items()),
        (weight for _, weight in sorted(plain.state_dict().items())),
        strict=True,
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["q_proj", "v_porj"], "has no 'v_porj'; did you mean 'v_proj'"),
        (r".*attention\.q_proj", "has no '.*attention"),
        ("((", "is not a valid regular expression (missing ), "),
        (["q_proj", "mlp"], "these modules (Target module LlamaMLP(); use down_proj, gate_proj"),
        (r".*norm", "PEFT cannot put LoRA on these modules"),
        ([], "PEFT cannot put LoRA on these modules"),
        ("", "PEFT cannot put LoRA on these modules"),
        (["self_attn.q_proj"], ""),
        (r".*self_attn\.[qv]_proj", ""),
    ],
)
def test_target_modules_that_the_model_lacks_are_refused(tiny_recipe, wanted, words):
    tiny_recipe.lora.target_modules = wanted
    with pytest.raises(UserError, match=re.escape(words)) if words else contextlib.nullcontext():
        load_policy(tiny_recipe)


def test_experts_are_refused_as_targets_since_their_adapter_could_not_be_loaded(tiny_recipe):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=8, num_key_value_heads=2, **sizes))
    names = model.state_dict().keys()
    with pytest.raises(
        UserError, match=r"includes the experts of this model.*\['k_proj', 'o_proj', 'q_proj'"
    ):
        check_targets(model, tiny_recipe)
    assert model.state_dict().keys() == names
    tiny_recipe.lora.target_modules = ["q_proj"]
    check_targets(model, tiny_recipe)


def test_the_modules_of_a_gpt2_are_named(tiny_recipe):
    from transformers import GPT2Config, GPT2LMHeadModel

    tiny_recipe.lora.target_modules = ["q_proj"]
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8))
    with pytest.raises(UserError, match="It has c_attn, c_fc, c_proj, lm_head"):
        check_targets(model, tiny_recipe)


@pytest.mark.parametrize(
    ("wanted", "change", "words"),
    [
        (
            ["q_proj", "lm_head"],
            {"engine": "unsloth"},
            "includes lm_head, but Unsloth trains all its weights",
        ),
        (["embed_tokens"], {"engine": "unsloth"}, r"includes model\.embed_tokens, but Unsloth"),
        (["q_proj", "lm_head"], {"use_vllm": True}, "includes lm_head, but it shares its weights"),
        (r".*(q_proj|embed_tokens)", {"use_vllm": True}, r"includes model\.embed_tokens, but it shares"),
        (["q_proj"], {"use_vllm": True}, ""),
        (["q_proj", "lm_head"], {}, ""),
    ],
)
def test_a_head_that_cannot_be_trained_is_refused_before_training(policy, tiny_recipe, wanted, change, words):
    tiny_recipe.lora.target_modules = wanted
    tiny_recipe.model.engine = change.get("engine", "transformers")
    tiny_recipe.grpo["use_vllm"] = change.get("use_vllm", False)
    with pytest.raises(UserError, match=words) if words else contextlib.nullcontext():
        check_targets(policy.model, tiny_recipe)


def test_the_same_seed_starts_from_the_same_adapter(tiny_recipe):
    def start(seed):
        recipe = tiny_recipe.model_copy(update={"grpo": tiny_recipe.grpo | {"seed": seed}})
        policy = load_policy(recipe)
        attach_lora(policy, recipe)
        return torch.cat([w.flatten() for n, w in policy.model.named_parameters() if "lora_A" in n])

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_an_adapter_of_another_base_is_refused(policy, tiny_recipe, tmp_path):
    attach_lora(policy, tiny_recipe)
    folder = policy.save_adapter(tmp_path / "adapter")
    other = load_policy(tiny_recipe)
    other.model.model.norm.weight.data += 1
    with pytest.raises(UserError, match="was made for tiny-policy"):
        other.load_adapter(folder)


def test_folders_without_an_adapter_or_a_model_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_trained(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not an adapter or model"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-such/model", "neither a local folder nor available from the Hub"),
        ("./nowhere", "not a model folder"),
    ],
)
def test_a_missing_model_is_refused_in_one_sentence(name, words):
    with pytest.raises(UserError, match=words):
        load_policy(load_recipe(model_name=name))


@pytest.mark.parametrize(
    "text",
    ['{"cache_implementation": "x"}', "[1]", '{"watermarking_config": 3}', '{"num_return_sequences": 2}'],
)
def test_a_models_file_that_transformers_refuses_is_named_in_one_sentence(tmp_path, text):
    folder = copy_of_tiny(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=r"(?s)cannot be loaded \(.*correct the model's files"):
        load_policy(load_recipe(model_name=folder))


def written(name, **values):
    """A change of a JSON file of a model; a value of None removes the key."""

    def change(folder):
        changed = json.loads((folder / name).read_text()) | values
        kept = {key: value for key, value in changed.items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return change


def truncated(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:5000])


END = {"eos_token_id": None}
TOKENIZER, CONFIG, GENERATION = "tokenizer_config.json", "config.json", "generation_config.json"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([truncated("model.safetensors")], "cannot be loaded .*: correct the model's files, download"),
        ([truncated("tokenizer.json")], "correct the model's files"),
        ([written(CONFIG, vocab_size=700)], "correct the model's files"),
        (
            [written(TOKENIZER, pad_token="[PAD]")],
            r"uses '\[PAD\]' with token id 640, but .* has only 640 rows",
        ),
        ([written(GENERATION, eos_token_id="<|im_end|>")], "has eos_token_id = '<.im_end.>': write a tok"),
        ([written(GENERATION, eos_token_id=[[2]])], r"has eos_token_id = \[\[2\]\]"),
        (
            [written(TOKENIZER, eos_token=None), written(CONFIG, **END), written(GENERATION, **END)],
            "has no end token, so its answers would never end: set eos_token in its tokenizer_config",
        ),
    ],
)
def test_damaged_or_incomplete_files_of_a_model_are_refused_in_one_sentence(tmp_path, changes, words):
    folder = copy_of_tiny(tmp_path / "model")
    for change in changes:
        change(tmp_path / "model")
    with pytest.raises(UserError, match=words) as refused:
        load_policy(load_recipe(model_name=folder))
    assert "\n" not in str(refused.value)


def test_a_tokenizer_without_end_and_pad_token_takes_the_models(tmp_path, prompts):
    folder = copy_of_tiny(tmp_path / "model")
    written(TOKENIZER, eos_token=None, pad_token=None)(tmp_path / "model")
    policy = load_policy(load_recipe(model_name=folder))
    assert (policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id) == (2, 2)
    assert len(texts(policy, prompts[:2])) == 2


def test_an_adapter_in_the_folder_of_a_base_model_is_not_used_silently(saved, tmp_path):
    folder = copy_of_tiny(tmp_path / "model")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(saved.adapter / name, folder)
    with pytest.raises(UserError, match=r"holds an adapter besides the model.*: move adapter_config\.json"):
        load_policy(load_recipe(model_name=folder))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("router_aux_loss_coef", 0.1, "not a mixture of experts"),
        ("cast_lm_head_to_fp32", True, "lm_head shares its weights"),
    ],
)
def test_what_trl_refuses_for_this_model_is_refused_when_it_is_loaded(key, value, words):
    with pytest.raises(UserError, match=f"{key} ?= ?{value}.*{words}.*leave it out"):
        load_policy(load_recipe(**{key: value}))


def test_a_model_with_other_names_has_a_fingerprint_of_its_weights(policy):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8))
    other = Policy(model, policy.tokenizer, policy.model_settings)
    before = other.fingerprint()
    model.transformer.ln_f.weight.data += 1
    assert other.fingerprint() != before


def test_the_fingerprint_is_the_same_in_bfloat16_and_float16(policy):
    policy.model.to(torch.bfloat16)
    small = policy.model.get_input_embeddings().weight.data
    small[::2] *= 1e-6  # so small that float16 loses digits
    ours = policy.fingerprint()
    policy.model.to(torch.float16)
    assert policy.fingerprint() == ours


@pytest.fixture
def shared(saved, tmp_path):
    """Return a function that changes the recipe on the card of a copied adapter, and returns its folder."""
    folder = tmp_path / "shared"
    shutil.copytree(saved.adapter, folder)

    def change(**sections):
        card = json.loads((folder / CARD).read_text())
        recipe = card["recipe"]
        for section, values in sections.items():
            known = recipe.get(section)
            merge = isinstance(known, dict) and isinstance(values, dict) and section != "rewards"
            recipe[section] = known | values if merge else values
        (folder / CARD).write_text(json.dumps(card))
        return folder

    return change


def test_outside_its_run_an_adapter_is_loaded_with_the_recipe_on_its_card(shared, capsys):
    rewards = {"countdown_reward_func": 1.0, "r1_format_reward_func": 0.0}
    folder = shared(
        grpo={"max_completion_length": 64, "temperature": 0.7, "use_cpu": True}, rewards=rewards,
        data={"dataset": "bundled-countdown", "test_splits": ["test_new"], "max_prompt_length": 100},
        evaluation={"test_problems": 7}, lora={"lora_alpha": 16},
    )  # fmt: skip
    _, recipe, trained = load_trained(folder)
    assert trained == folder
    assert (recipe.greedy.max_tokens, recipe.sampling.temperature) == (64, 0.7)
    assert (recipe.data.dataset, recipe.data.test_splits) == ("bundled-countdown", ["test_new"])
    assert (recipe.data.max_prompt_length, recipe.evaluation.test_problems) == (100, 7)
    assert recipe.rewards == rewards
    assert "recipe on the card" not in capsys.readouterr().out


def test_in_its_run_an_adapter_is_loaded_with_the_recipe_of_the_run(saved):
    _, recipe, trained = load_trained(saved.folder)
    assert trained == saved.adapter
    assert recipe == load_recipe(saved)


def test_a_card_of_an_older_r1nb_without_a_recipe_gives_model_and_layout(policy, tmp_path, monkeypatch):
    monkeypatch.setenv("R1NB_SET", "eval_batch_size=3")
    attach_lora(policy, load_recipe())
    folder = policy.save_adapter(tmp_path / "adapter", layout=THINK)
    _, recipe, _ = load_trained(folder)
    assert (recipe.name, recipe.data.layout, recipe.evaluation.eval_batch_size) == ("tiny-cpu", "think", 3)
    assert recipe.model == policy.model_settings
    card = json.loads((folder / CARD).read_text())
    del card["layout"], card["prompt"]  # from a version with only one layout
    (folder / CARD).write_text(json.dumps(card))
    assert load_trained(folder)[1].data.layout == "reasoning"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"grpo": {"a_key_of_tomorrow": 1}}, "a_key_of_tomorrow"),
        ({"grpo": {"num_generations": 7}}, "num_generations = 7 does not divide"),
        ({"grpo": None}, "grpo"),
        ({"model": 3}, "model = 3"),
        ({"held_out": {"problems": 60}}, "held_out"),
        ({"data": [], "rewards": ["correctness_reward_func"]}, "data"),
        ({"lora": {"r": -1}}, "lora.r = -1: must be at least 1"),
    ],
)
def test_a_recipe_on_a_card_that_is_refused_is_replaced_by_the_default(shared, capsys, sections, words):
    policy, recipe, _ = load_trained(shared(**sections))
    assert policy.has_adapter
    assert recipe.model == policy.model_settings
    assert recipe.model_copy(update={"model": load_recipe().model}) == load_recipe()
    said = [line for line in capsys.readouterr().out.splitlines() if "recipe on the card" in line]
    assert len(said) == 1
    assert words in said[0]
    assert said[0].endswith(" tiny-cpu is used instead, except for model and layout.")


def test_a_card_whose_recipe_is_not_a_mapping_is_damaged(shared):
    folder = shared()
    card = json.loads((folder / CARD).read_text())
    for nonsense in ([1], "tiny-cpu", 3):
        (folder / CARD).write_text(json.dumps(card | {"recipe": nonsense}))
        with pytest.raises(UserError, match=r"r1nb\.json in shared is damaged"):
            load_trained(folder)


@pytest.mark.parametrize(
    ("rewards", "kept", "judge"),
    [
        ({"my_reward_func": 1.0, "countdown_reward_func": 2.0}, {"countdown_reward_func": 2.0}, "countdown"),
        ({"my_reward_func": 1.0}, {"xmlcount_reward_func": 1.0}, "countdown"),
        ({"my_reward_func": 1.0, "int_reward_func": 0.0}, {"xmlcount_reward_func": 1.0}, "countdown"),
    ],
)
def test_rewards_that_only_the_notebook_of_the_run_defined_are_left_out(shared, capsys, rewards, kept, judge):
    _, recipe, _ = load_trained(shared(rewards=rewards, grpo={"max_completion_length": 64}))
    assert recipe.rewards == kept
    assert recipe.greedy.max_tokens == 64  # the other values stay
    assert recipe.judge(["nums", "target"]).answer.__name__ == f"{judge}_reward_func"
    assert "unknown here; left out: my_reward_func." in capsys.readouterr().out


def test_a_judge_named_on_a_card_is_not_called(shared, capsys):
    """It would get the user's questions and the OPENAI_API_KEY."""
    rewards = {"judge_reward_func": 1.0, "correctness_reward_func": 1.0}
    scoring = {"judge_url": "https://elsewhere.example/v1", "judge_model": "judge"}
    _, recipe, _ = load_trained(shared(rewards=rewards, scoring=scoring))
    assert recipe.scoring.judge_url is None
    assert "judge_reward_func" not in recipe.rewards
    assert "judge_reward_func needs judge_url" in capsys.readouterr().out


def test_the_run_that_an_adapter_started_from_may_be_missing(shared, saved):
    _, recipe, _ = load_trained(shared(lora={"start_from": "a-run-of-another-machine-001"}))
    assert recipe.lora.start_from is None
    path = saved.folder / "recipe.yaml"
    text = path.read_text()
    path.write_text(text.replace("start_from: null", "start_from: a-run-that-was-deleted-001"))
    try:
        assert load_trained(saved.folder)[1].lora.start_from is None
    finally:
        path.write_text(text)


def test_an_adapter_keeps_its_dtype_and_names_a_missing_engine(shared, prompts):
    """The base is loaded in the dtype of the training; an engine that is not installed is named."""
    folder = shared()
    path = folder / CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"model": card["model"] | {"dtype": "bfloat16"}}))
    policy, recipe, _ = load_trained(folder)
    assert (policy.model.dtype, recipe.model.dtype) == (torch.bfloat16, "bfloat16")
    assert len(texts(policy, prompts)) == len(prompts)
    path.write_text(json.dumps(card | {"model": card["model"] | {"engine": "unsloth"}}))
    with pytest.raises(UserError, match="needs Unsloth, which cannot be imported here") as refused:
        load_trained(folder)
    assert "\n" not in str(refused.value)


def test_outside_its_run_a_whole_model_is_loaded_with_its_recipe_too(tmp_path):
    recipe = load_recipe("tiny-cpu", lora=None, runs_dir=str(tmp_path / "runs"), max_completion_length=64)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    shutil.copytree(policy.save_trained(new_run(recipe)), tmp_path / "model")
    loaded, known, _ = load_trained(tmp_path / "model")
    assert not loaded.has_adapter
    assert known.greedy.max_tokens == 64
    assert known.model == recipe.model.model_copy(
        update={"model_name": str(tmp_path / "model"), "dtype": "float32"}
    )


def test_an_adapter_of_r1nb_0_1_can_be_loaded(shared, saved, prompts):
    """Its card has the same keys, but its recipe contains paths, and its README is worded differently."""
    folder = shared(
        data={"dataset": "/elsewhere/mine.jsonl"},
        model={"model_name": "/elsewhere/base"},
        why={"seed": "?"},
    )
    card = json.loads((folder / CARD).read_text())
    keys = ("n", "strict", "strict_interval", "lenient", "format")
    card["accuracy"] = {"test": {"after": {key: card["accuracy"]["test"]["after"][key] for key in keys}}}
    (folder / CARD).write_text(json.dumps(card | {"r1nb": "0.1.0"}))
    policy, recipe, _ = load_trained(folder)
    assert (recipe.model.model_name, recipe.data.dataset) == ("tiny-policy", "mine.jsonl")
    assert texts(policy, prompts) == texts(load_trained(saved.folder)[0], prompts)
