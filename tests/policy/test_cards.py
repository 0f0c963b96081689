"""The cards of trained weights: what they say, and that no saved file contains a path of this machine."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from r1nb.machine.model_files import licence
from r1nb.paths import DATA
from r1nb.policy.cards import prompt_format, short_name, without_places
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.runs.run import CARD
from r1nb.text.prompts import REASONING
from r1nb.training.resume import new_run


def fresh(**settings):
    return load_policy(load_recipe("tiny-cpu", **settings))


def test_the_card_names_base_recipe_data_and_accuracy(saved):
    card = json.loads((saved.adapter / CARD).read_text())
    assert card["model"]["model_name"] == "tiny-policy"
    assert card["base_fingerprint"] == fresh().fingerprint()
    assert card["base_licence"] == "mit"
    assert card["recipe"]["grpo"]["learning_rate"] == load_recipe().grpo["learning_rate"]
    assert card["data"] == saved.environment["data"]
    assert card["data"]["rows"] == 1500
    assert card["accuracy"]["test"]["after"]["strict"] == 0.5
    assert "{question}" in card["prompt"]
    assert card["date"].startswith("20")


def test_the_model_card_is_valid_for_the_hub(saved):
    card = ModelCard.load(saved.adapter / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "peft"
    assert card.data.base_model is None  # it is not on the Hub
    assert card.data.datasets is None
    assert card.data.tags == ["lora", "grpo", "trl", "r1nb"]
    lines = card.text.splitlines()
    assert "# A LoRA adapter for tiny-policy" in lines
    said = "Recipe `tiny-cpu`, dataset `bundled` (1500 training rows), seed 1; all settings are in r1nb.json."
    assert said in lines
    rate = "test, 10 problems, {}: 50.0% strict [20.0%, 80.0%], format 90.0%"
    assert [line for line in lines if line.startswith("- test, 10 problems, ")] == [
        f"- {rate.format(moment)}" for moment in ("before", "after")
    ]  # "prefilled" was not judged, so it has no line
    assert prompt_format(fresh().tokenizer, REASONING) in card.text


def folders(tmp_path) -> dict:
    """Return values of a recipe that name files and folders of this machine, as a user would set them."""
    here = tmp_path / "alice" / "secret"
    shutil.copytree(DATA / "tiny-policy", here / "base")
    data = here / "mine"
    data.mkdir()
    row = json.dumps({"question": "How much is 1 + 2?", "answer": "3"})
    for split in ("train", "validation", "test"):
        (data / f"{split}.jsonl").write_text(f"{row}\n" * 40)
    return {
        "model_name": str(here / "base"), "dataset": str(data), "runs_dir": str(here / "runs"),
        "test_splits": "test", "question_column": "question", "answer_column": "answer",
        "run_name": str(here / "mine"), "vllm_server_base_url": "http://alice.example:8000",
        "judge_url": "http://alice.example:8001/v1", "judge_model": "judge",
    }  # fmt: skip


@pytest.mark.parametrize("what", ["an adapter", "an adapter that was trained on", "all weights"])
def test_no_saved_file_contains_a_path_of_this_machine(tmp_path, what):
    recipe = load_recipe("tiny-cpu", **folders(tmp_path) | ({"lora": None} if what == "all weights" else {}))
    if what == "an adapter that was trained on":
        parent = new_run(recipe)
        policy = load_policy(recipe)
        attach_lora(policy, recipe)
        policy.save_adapter(parent.adapter, parent)
        started = {"lora": recipe.lora.model_copy(update={"start_from": str(parent.folder)})}
        recipe = recipe.model_copy(update=started)
    run = new_run(recipe)
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    folder = policy.save_trained(run)
    card = json.loads((folder / CARD).read_text())
    assert card["model"]["model_name"] == recipe.model.model_name  # the path is needed for loading
    assert card["recipe"]["model"]["model_name"] == "base"
    assert card["recipe"]["data"]["dataset"] == "mine"
    card["model"]["model_name"] = ""
    (folder / CARD).write_text(json.dumps(card))
    for file in folder.rglob("*"):
        for word in (str(tmp_path), "alice", "secret"):
            assert file.is_dir() or word.encode() not in file.read_bytes(), f"{word} in {file.name}"
    readme = ModelCard.load(folder / "README.md")
    assert (readme.data.base_model, readme.data.datasets) == (None, None)  # they are not on the Hub
    assert "dataset `mine`" in readme.text


def test_an_export_contains_no_path_of_this_machine(tmp_path):
    recipe = load_recipe("tiny-cpu", **folders(tmp_path))
    policy = load_policy(recipe)
    attach_lora(policy, recipe)
    for file in save_merged(policy, tmp_path / "merged").iterdir():
        assert b"alice" not in file.read_bytes(), file.name


def test_the_model_card_names_a_dataset_of_the_hub(saved, tmp_path):
    policy = fresh()
    attach_lora(policy, load_recipe())
    for dataset, named in (("openai/gsm8k", "openai/gsm8k"), ("openai/gsm8k:socratic", "openai/gsm8k"),
                           ("reasoning-gym:chain_sum", None)):  # fmt: skip
        run = new_run(load_recipe("tiny-cpu", dataset=dataset, runs_dir=str(tmp_path)))
        readme = ModelCard.load(policy.save_adapter(run.adapter, run) / "README.md")
        assert readme.data.datasets == ([named] if named else None)
        assert f"dataset `{dataset}`" in readme.text


def test_a_path_is_shortened_to_its_last_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "mine").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "org" / "mine"), "/not/here/mine/", "~/gone/mine", "org/mine", "./org/mine"):
        assert short_name(name) == "mine"
    for name in ("openai/gsm8k", "reasoning-gym:a+b", "bundled", "", "~", "x" * 5000, "../gone/x"):
        assert short_name(name) in (name, tmp_path.name)
    recipe = {"a": {"b": ["/x/y", 3, None, True]}, "c": "https://x.org/v1", "d": "see https://x.org"}
    assert without_places(recipe) == {"a": {"b": ["y", 3, None, True]}, "c": None, "d": "see https://x.org"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unsloth/Meta-Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "llama3.1"),
        ("unsloth/Llama-3.2-1B-Instruct", "llama3.2"),
        ("org/unheard-of", "unknown"),
    ],
)
def test_the_licence_of_a_base(name, expected):
    assert licence(name) == expected


def test_the_licence_of_a_local_base_is_in_its_card(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n")
    assert licence(str(tmp_path)) == "bsd-3-clause"


def test_the_date_in_a_chat_template_does_not_change_the_prompt_format():
    policy = fresh()
    template = "{{ strftime_now('%Y-%m-%d') }} " + policy.tokenizer.chat_template
    policy.tokenizer.chat_template = template
    assert prompt_format(policy.tokenizer, REASONING).startswith("{date} ")
