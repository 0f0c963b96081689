"""Adapters on disk: which ones are refused, in one sentence and before they are loaded."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.policy.adapters import CONFIG, WEIGHTS
from r1nb.policy.loading import attach_lora, load_policy, load_trained
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
