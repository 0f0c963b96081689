"""Adapters on disk: which ones are refused, in one sentence and before they are loaded."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1nb.errors import UserError
from r1nb.evaluation import proof
from r1nb.paths import DATA
from r1nb.policy.adapters import CONFIG, WEIGHTS, strip
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.trained import load_trained
from r1nb.recipes.loading import load_recipe
from r1nb.runs.run import CARD
from r1nb.text.prompts import REASONING, THINK


def fresh(**settings):
    return load_policy(load_recipe("tiny-cpu", **settings))


def configured(**values):
    def change(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | values))

    return change


def carded(**values):
    def change(folder):
        card = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(card | values))

    return change


def written(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])


def pickled(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"x": torch.ones(1)}, folder / "adapter_model.bin")


def lose_a_tensor(folder):
    weights = load_file(folder / WEIGHTS)
    weights.pop(next(iter(weights)))
    save_file(weights, folder / WEIGHTS)


def poison(folder):
    weights = load_file(folder / WEIGHTS)
    weights[next(name for name in weights if "lora_A" in name)][0] = float("inf")
    save_file(weights, folder / WEIGHTS)


def in_8_bits(folder):
    weights = {name: weight.to(torch.float8_e4m3fn) for name, weight in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)


def flatten(folder):
    """Give a lora_B another shape: PEFT notices it only after it has changed the model."""
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "lora_B" in name)
    save_file(weights | {name: torch.ones(3)}, folder / WEIGHTS)


class Payload:
    """If this is unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


REFUSED = {
    "truncated": (truncate, "is damaged"),
    "a pickle named adapter_model.safetensors": (written(WEIGHTS, pickle.dumps({1: 2})), "is damaged"),
    "a pickle instead": (pickled, "adapter_model.bin could run code when loaded, so r1nb never loads it"),
    "empty": (written(WEIGHTS, b""), "is damaged"),
    "a tensor lost": (lose_a_tensor, "1 of its 56 tensors are missing"),
    "another rank": (configured(r=16), "has rank 8, but its adapter_config.json says r = 16"),
    "not finite": (poison, "lora_A.weight holds numbers that are not finite"),
    "a tensor of another shape": (flatten, "does not fit tiny-policy"),
    "a rank in words": (configured(r="8"), "has rank 8, but its adapter_config.json says r = '8'"),
    "no rank": (written(CONFIG, b'{"peft_type": "LORA"}'), "cannot be read (KeyError: 'r')"),
    "no method": (written(CONFIG, b'{"r": 8}'), "cannot be read (KeyError: 'peft_type')"),
    "a deep list": (written(CONFIG, b"[" * 200_000), "cannot be read (RecursionError: "),
    "a pattern of another kind": (
        configured(rank_pattern=["q_proj"]),
        "or its adapter_config.json is damaged: ",
    ),
    "an invalid expression": (configured(target_modules="(("), "is damaged: missing )"),
    "an expression that takes forever": (configured(target_modules="((a+)+)!"), "repeats a group"),
    "an endless expression to exclude": (configured(exclude_modules="((a+)+)!"), "repeats a group"),
    "an endless expression in a pattern": (configured(rank_pattern={"((a+)+)!": 8}), "repeats a group"),
    "an alpha that is no number": (configured(lora_alpha=float("nan")), "cannot be read (ValueError: "),
    "numbers of 8 bits": (in_8_bits, "is damaged"),
    "an alpha in words": (configured(lora_alpha="16"), "is damaged: unsupported operand"),
    "a dropout in words": (configured(lora_dropout="much"), "is damaged: "),
    "a number of modules": (configured(target_modules=7), "is damaged: "),
    "a rank of 0": (configured(r=0), "has rank 8, but its adapter_config.json says r = 0"),
    "a pattern of words": (configured(rank_pattern={"q_proj": "8"}), "is damaged: "),
    "a negative pattern": (configured(rank_pattern={"q_proj": -1}), "is damaged: "),
    "a key of a later PEFT": (configured(tomorrow={"a": 1}), "sets tomorrow = "),
    "a trained bias": (configured(bias="all"), "sets bias = 'all', which r1nb does not load"),
    "another method": (configured(peft_type="IA3"), "has peft_type 'IA3'"),
    "a list": (written(CONFIG, b"[]"), "cannot be read"),
    "no JSON": (written(CONFIG, b"\xff{"), "cannot be read"),
    "a file to be loaded": (configured(corda_config={"cache_file": "elsewhere.pt"}), "sets corda_config"),
    "other modules": (configured(target_modules=["q_proj"]), "48 unexpected"),
    "unknown modules": (configured(target_modules=["nothing"]), "does not fit tiny-policy"),
    "another base": (carded(base_fingerprint="0" * 16), "was made for tiny-policy, not for tiny-policy"),
    "another prompt": (carded(prompt="Q: {question}"), "trained with another prompt format"),
    "another layout": (carded(layout="think"), "set layout='think'"),
    "a torn card": (written(CARD, b'{"model"'), "r1nb.json in adapter is damaged"),
    "an unknown layout": (carded(layout="nope"), "is damaged"),
    "a card of nonsense": (written(CARD, b'{"model": {"model_name": 3}}'), "is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_or_foreign_adapter_is_refused_in_one_sentence(saved, tmp_path, name):
    change, words = REFUSED[name]
    folder = tmp_path / "adapter"
    shutil.copytree(saved.adapter, folder)
    policy = fresh()
    policy.load_adapter(folder, REASONING)
    assert policy.has_adapter  # before the change
    change(folder)
    policy = fresh()
    with pytest.raises(UserError) as refused:
        policy.load_adapter(folder, REASONING)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not policy.has_adapter
    assert policy.model.state_dict().keys() == fresh().model.state_dict().keys()  # the base is unchanged
    policy.load_adapter(saved.adapter)


def test_nothing_is_unpickled(saved, tmp_path):
    folder, mark = tmp_path / "adapter", tmp_path / "unpickled"
    shutil.copytree(saved.adapter, folder)
    data = pickle.dumps(Payload(str(mark)))
    (folder / "adapter_model.bin").write_bytes(data)
    fresh().load_adapter(folder)  # with safetensors weights beside it, the pickle is ignored
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        fresh().load_adapter(folder)
    assert not mark.exists()


def test_a_rank_above_max_lora_rank_is_refused(saved):
    with pytest.raises(UserError, match="has rank 8: set max_lora_rank=8, now 4"):
        fresh(max_lora_rank=4).load_adapter(saved.adapter)


def test_an_adapter_without_a_run_knows_its_layout(tmp_path):
    recipe = load_recipe("tiny-cpu", layout="think")
    policy = fresh()
    attach_lora(policy, recipe)
    _, loaded, _ = load_trained(policy.save_adapter(tmp_path / "adapter", layout=THINK))
    assert loaded.data.layout == "think"


def test_a_card_that_names_a_folder_without_a_model_is_refused(saved, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(saved.adapter, folder)
    card = json.loads((folder / CARD).read_text())
    carded(model=card["model"] | {"model_name": "../../etc"})(folder)
    with pytest.raises(UserError, match=r"not a model folder: config.json is missing"):
        load_trained(folder)


def test_an_adapter_without_a_card_can_be_loaded(saved, tmp_path, capsys):
    folder = tmp_path / "adapter"
    shutil.copytree(saved.adapter, folder)
    (folder / CARD).unlink()
    policy = fresh()
    policy.load_adapter(folder)
    assert policy.has_adapter
    assert capsys.readouterr().out == ""
    configured(base_model_name_or_path="other/model")(folder)
    fresh().load_adapter(folder)
    assert "it names other/model as its base model, but tiny-policy is loaded" in capsys.readouterr().out


def test_a_local_base_can_be_moved_and_its_path_is_not_saved(tmp_path):
    for name in ("here", "there"):
        shutil.copytree(DATA / "tiny-policy", tmp_path / name / "my base")
    recipe = load_recipe("tiny-cpu", model_name=str(tmp_path / "here" / "my base"))
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    folder = policy.save_adapter(tmp_path / "adapter")
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "my base"
    fresh(model_name=str(tmp_path / "there" / "my base")).load_adapter(folder)


def test_the_reference_adapter_of_the_kl_term_is_not_saved(tmp_path):
    recipe = load_recipe("tiny-cpu")
    policy = fresh()
    attach_lora(policy, recipe)
    policy.model.add_adapter("ref", policy.model.peft_config["default"])
    folder = policy.save_adapter(tmp_path / "adapter")
    assert not [path for path in folder.iterdir() if path.is_dir()]
    fresh().load_adapter(folder)


def test_attach_lora_replaces_an_adapter_by_a_fresh_one(saved):
    policy = fresh()
    policy.load_adapter(saved.adapter)
    attach_lora(policy, load_recipe("tiny-cpu"))
    start = {name: w for name, w in policy.model.named_parameters() if "lora_B" in name}
    assert not any(w.any() for w in start.values())
    assert not any(".base_layer.base_layer." in name for name in policy.model.state_dict())


IDS = torch.arange(3, 40).reshape(1, -1)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def begun_by_peft(**settings):
    """An adapter that PEFT makes on the tiny policy, before training."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **{"target_modules": ["q_proj"]} | settings)
    model = get_peft_model(fresh().model, config)
    config.base_model_name_or_path = "tiny-policy"
    return model


def by_peft(**settings):
    """An adapter that PEFT makes, with weights as after training."""
    model = begun_by_peft(**settings)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    return model


KINDS = {
    "gaussian": {"init_lora_weights": "gaussian"},
    "begun anywhere": {"init_lora_weights": False},
    "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "patterns": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2},
                 "alpha_pattern": {"v_proj": 32}},
    "some layers": {"layers_to_transform": [0, 2]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "head by a pattern": {"target_modules": r".*(q_proj|lm_head)"},
    "embedding": {"target_modules": ["embed_tokens"]},
    "head and embedding": {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
    "dora on the embedding": {"target_modules": ["embed_tokens"], "use_dora": True},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole head and embedding": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "whole norm": {"modules_to_save": ["norm"]},
    "some tokens": {"trainable_token_indices": [5, 6]},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # PEFT warns of tied weights
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_lora_is_loaded_saved_and_exported_with_the_same_logits(tmp_path, kind):
    model = by_peft(**KINDS[kind])
    trained = logits(model)
    model.save_pretrained(tmp_path / "by-peft")
    policy = fresh()
    base, fingerprint = policy.model.state_dict(), policy.fingerprint()
    base = {name: weight.clone() for name, weight in base.items()}
    untrained = logits(policy.model)
    assert (untrained - trained).abs().max() > 0.01
    policy.load_adapter(tmp_path / "by-peft")
    again = fresh()
    again.load_adapter(policy.save_adapter(tmp_path / "again"))
    for loaded in (policy, again):
        assert torch.allclose(logits(loaded.model), trained, atol=1e-4)
        assert loaded.fingerprint() == fingerprint
        with loaded.model.disable_adapter():
            assert torch.allclose(logits(loaded.model), untrained, atol=1e-4)
    save_merged(policy, tmp_path / "merged")
    merged, _, _ = load_trained(tmp_path / "merged")
    assert torch.allclose(logits(merged.model), trained, atol=1e-2)
    stripped = strip(policy.model)
    assert stripped.state_dict().keys() == base.keys()
    assert all(weight.equal(base[name]) for name, weight in stripped.state_dict().items())
    assert stripped.lm_head.weight is stripped.model.embed_tokens.weight


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_2", "olora", "OLoRA"])
def test_an_adapter_whose_beginning_changed_the_base_is_refused(tmp_path, begun):
    by_peft(init_lora_weights=begun).save_pretrained(tmp_path / "adapter")
    policy = fresh()
    with pytest.raises(
        UserError, match=f"init_lora_weights = '{begun}', which changed the base model: .*save"
    ):
        policy.load_adapter(tmp_path / "adapter")
    assert not policy.has_adapter


@pytest.mark.parametrize(
    ("begun", "config"),
    [
        ("corda", {"corda_config": {"corda_method": "ipm"}}),
        ("loftq", {"loftq_config": {"loftq_bits": 4}}),
        ("lora_ga", {"lora_ga_config": {"direction": "ArB2r"}}),
        ("of tomorrow", {}),
        (3, {}),
    ],
)
def test_other_beginnings_that_change_the_base_get_the_same_sentence(saved, tmp_path, begun, config):
    folder = tmp_path / "adapter"
    shutil.copytree(saved.adapter, folder)
    configured(init_lora_weights=begun, **config)(folder)
    with pytest.raises(UserError, match="path_initial_model_for_weight_conversion"):
        fresh().load_adapter(folder)


@pytest.mark.parametrize("begun", ["pissa", "olora"])
def test_an_adapter_that_peft_converted_is_loaded(tmp_path, begun):
    model = begun_by_peft(init_lora_weights=begun)
    assert torch.allclose(logits(model), logits(fresh().model), atol=1e-2)
    model.peft_config["default"].init_lora_weights = True  # PEFT's guide asks for this
    model.save_pretrained(tmp_path / "begun")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data *= 1.5
    model.save_pretrained(
        tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "begun")
    )
    policy = fresh()
    policy.load_adapter(tmp_path / "adapter")
    assert torch.allclose(logits(policy.model), logits(model), atol=1e-2)


def test_an_adapter_that_brings_other_weights_of_the_base_is_refused(tmp_path):
    by_peft(target_modules=["q_proj", "lm_head"]).save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    name = next(name for name in weights if ".base_layer." in name)
    save_file(weights | {name: weights[name] + 1}, tmp_path / WEIGHTS)
    policy = fresh()
    with pytest.raises(
        UserError, match=r"base model whose lm_head\.weight differs from the one loaded here; load the"
    ):
        policy.load_adapter(tmp_path)
    assert policy.fingerprint() == fresh().fingerprint()


@pytest.mark.parametrize("rows", [640, 648])
def test_embeddings_saved_with_an_adapter_must_be_those_of_the_base(tmp_path, rows):
    model = begun_by_peft()
    model.resize_token_embeddings(rows)
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    policy = fresh()
    if rows == 640:
        policy.load_adapter(tmp_path)
        weights = load_file(tmp_path / WEIGHTS)
        name = next(name for name in weights if "embed_tokens" in name)
        save_file(weights | {name: weights[name] + 1}, tmp_path / WEIGHTS)
    refused = (
        r"whose (lm_head|model\.embed_tokens)\.weight differs from the one loaded here; load .*, or merge"
    )
    with pytest.raises(UserError, match=refused):
        policy.load_adapter(tmp_path)
    assert policy.fingerprint() == fresh().fingerprint()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_of_the_head_fits_its_base_in_another_precision(tmp_path, dtype):
    model = begun_by_peft(target_modules=["lm_head"])
    model.to(dtype).save_pretrained(tmp_path)
    policy = fresh()
    policy.load_adapter(tmp_path)
    assert policy.has_adapter
    assert policy.fingerprint() == fresh().fingerprint()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["head and embedding", "whole head and embedding", "some tokens", "dora"])
@pytest.mark.parametrize("damage", [truncate, flatten])
def test_a_refused_adapter_leaves_the_present_one_in_place(saved, tmp_path, kind, damage):
    by_peft(**KINDS[kind]).save_pretrained(tmp_path / "present")
    shutil.copytree(saved.adapter, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    policy = fresh()
    policy.load_adapter(tmp_path / "present")
    before, names = logits(policy.model), policy.model.state_dict().keys()
    with pytest.raises(UserError):
        policy.load_adapter(tmp_path / "damaged")
    assert logits(policy.model).equal(before)
    assert policy.model.state_dict().keys() == names
    policy.save_adapter(tmp_path / "again")


@pytest.mark.parametrize(
    "nonsense",
    [{"modules_to_save": "lm_head"}, {"modules_to_save": [7]},
     {"modules_to_save": ["layers"]}, {"modules_to_save": ["q_proj"]},
     {"trainable_token_indices": [10**6]}, {"trainable_token_indices": "5"},
     {"trainable_token_indices": {"q_proj": [1]}}, {"trainable_token_indices": [5]}, {"lora_bias": True},
     {"modules_to_save": ["(a+)+!"]}],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_settings_that_the_tensors_contradict_leave_the_base_unchanged(saved, tmp_path, nonsense):
    folder = tmp_path / "adapter"
    shutil.copytree(saved.adapter, folder)
    configured(**nonsense)(folder)
    policy = fresh()
    with pytest.raises(UserError):
        policy.load_adapter(folder)
    ours, base = policy.model.state_dict(), fresh().model.state_dict()
    assert ours.keys() == base.keys()
    assert all(weight.equal(base[name]) for name, weight in ours.items())
    policy.load_adapter(saved.adapter)


@pytest.fixture
def moved(tmp_path):
    """(adapter, new folder of its base) after the base was moved."""
    shutil.copytree(DATA / "tiny-policy", tmp_path / "here")
    recipe = load_recipe("tiny-cpu", model_name=str(tmp_path / "here"))
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    adapter = policy.save_adapter(tmp_path / "adapter")
    return adapter, (tmp_path / "here").rename(tmp_path / "there")


def test_an_adapter_whose_base_was_moved_takes_its_new_place(moved, monkeypatch):
    adapter, there = moved
    with pytest.raises(
        UserError, match=r"'.*here' is not a model folder.*; if .* elsewhere now, set R1NB_SET"
    ):
        load_trained(adapter)
    assert load_trained(adapter, base=there)[1].model.model_name == str(there)
    assert load_trained(adapter, "tiny-policy")[0].has_adapter
    for key in ("model_name", "model.model_name"):
        monkeypatch.setenv("R1NB_SET", f"{key}={there}")
        policy, recipe, _ = load_trained(adapter)
        assert policy.has_adapter
        assert recipe.model.model_name == str(there)


def test_another_base_is_refused_wherever_it_is_named(moved, monkeypatch):
    adapter, there = moved
    with pytest.raises(UserError, match="was made for here, not for tiny-countdown as loaded here"):
        load_trained(adapter, base="tiny-countdown")
    for no_model in (there / "nowhere", there.parent, ""):
        with pytest.raises(UserError, match=r"' is not a model folder: config\.json is missing"):
            load_trained(adapter, base=no_model)
    monkeypatch.setenv("R1NB_SET", "model_name=tiny-countdown")
    with pytest.raises(UserError, match="was made for here"):
        load_trained(adapter)


def test_a_base_that_is_where_it_was_is_taken_whatever_r1nb_set_says(saved, monkeypatch):
    monkeypatch.setenv("R1NB_SET", "model_name=tiny-countdown")
    assert load_trained(saved.folder)[1].model.model_name == "tiny-policy"


def test_a_whole_model_takes_no_base(saved, tmp_path):
    policy = fresh()
    policy.load_adapter(saved.adapter)
    with pytest.raises(
        UserError, match="is a whole model, which needs no base model: leave out base='tiny-policy'"
    ):
        load_trained(save_merged(policy, tmp_path / "merged"), base="tiny-policy")


def test_the_proof_of_a_run_finds_a_base_that_was_moved(saved, tmp_path, monkeypatch):
    folder, there = tmp_path / "run", tmp_path / "there"
    shutil.copytree(saved.folder, folder)
    shutil.copytree(DATA / "tiny-policy", there)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("model_name: tiny-policy", "model_name: /gone/base"))
    rows, answers = tmp_path / "rows.json", tmp_path / "answers.json"
    rows.write_text(
        json.dumps([{"prompt": REASONING.build_messages("1+1?"), "question": "1+1?", "answer": "2"}])
    )
    with pytest.raises(UserError, match=r"'/gone/base' is not a model folder.*set R1NB_SET='model_name="):
        proof.main(str(folder), str(rows), str(answers))
    monkeypatch.setenv("R1NB_SET", f"model_name={there}")
    proof.main(str(folder), str(rows), str(answers))
    assert json.loads(answers.read_text())["norm"] > 0
