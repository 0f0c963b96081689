"""Loading recipes from YAML; the caller and R1NB_SET replace values."""

import os
import subprocess
import sys

import pytest
import yaml

from r1nb.errors import UserError
from r1nb.paths import runs_folder
from r1nb.recipes.loading import default_runs_dir, load_recipe
from r1nb.runs.run import Run


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe file and returns its path."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_r1nb_set_overrides_the_recipe_and_the_caller(monkeypatch, tmp_path):
    folder = str(tmp_path / "my runs")
    monkeypatch.setenv("R1NB_SET", f"max_steps=5 learning_rate=5e-6 runs_dir='{folder}'")
    recipe = load_recipe(max_steps=9)
    assert recipe.grpo["max_steps"] == 5
    assert recipe.grpo["learning_rate"] == 5e-6
    assert recipe.output.runs_dir == folder
    monkeypatch.setenv("R1NB_SET", "recipe=tiny-r1 sft.max_steps=7")
    recipe = load_recipe("tiny-cpu")
    assert (recipe.name, recipe.sft["max_steps"]) == ("tiny-r1", 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ["not valid YAML", "line"]),
        ("a: 2024-99-99", ["not valid YAML"]),
        ("just words", ["no sections"]),
        ("modell: {}", ["Unknown key modell", "did you mean 'model'"]),
        ("like: tiny-cpu\nmodell:", ["Unknown key modell"]),
        ("like: tiny-cpu\n5: 6", ["5"]),
        ("model: {model_name: x}", ["lacks model.engine, model.max_seq_length, lora", "; see recipes/"]),
        ("like: tiny-cpu\nmodel: {modle_name: x}", ["model.modle_name", "did you mean 'model_name'"]),
        ("model: {modle_name: x}", ["model.modle_name", "did you mean 'model_name'"]),  # and a key is missing
        ("like: tiny-cpu\nsft: {max_step: 2}", ["sft.max_step;", "did you mean 'max_steps'"]),
        ("like: tiny-cpu\nevaluation:", ["lacks evaluation; see recipes/"]),
        ("like: tiny-cpu\nrewards:", ["lacks rewards; see recipes/"]),
        ("like: tiny-cpu\nlora: {r: two}", ["lora.r = 'two': must be a valid integer."]),
        ("like: tiny-cpu\ndata: {test_splits: 5}", ["data.test_splits = 5: must be a valid list."]),
        ("like: tiny-cpu\nmodel: {load_in_4bit: maybe}", ["'maybe': must be a valid boolean."]),
        (
            "like: tiny-cpu\ngrpo: {seed: 5,\n seed: 7}",
            ["the key seed occurs twice", "line 3"],
        ),
        ("like: tiny-cpu\nlike: tiny-r1", ["the key like occurs twice", "line 2"]),
        ("like: tiny-cpu\ngrpo: {learning_rate: 1,5}", ["Unknown key grpo.5: TRL"]),
        ("like: none-such", ["Unknown recipe 'none-such'"]),
        ("like: mine.yaml", ["mine.yaml is like itself (mine.yaml like mine.yaml): "]),
    ],
)
def test_a_broken_recipe_file_becomes_one_sentence(write, monkeypatch, tmp_path, text, words):
    monkeypatch.chdir(tmp_path)
    write(text)
    with pytest.raises(UserError) as caught:
        load_recipe("mine.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


SECTIONS = ("model", "lora", "data", "scoring", "evaluation", "output", "sft", "grpo", "rewards", "why")


@pytest.mark.parametrize("value", ["plain text", "3", "[1]", "[]", "true"])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_a_wrong_type_becomes_one_sentence(write, monkeypatch, section, value):
    path = write(f"like: tiny-r1\n{section}: {value}")
    words = rf"^{section} = .*: must hold key: value lines\.$"
    with pytest.raises(UserError, match=words):
        load_recipe(path)
    monkeypatch.setenv("R1NB_SET", "sft.max_steps=2 max_steps=2 runs_dir=x dataset=y r=4")
    with pytest.raises(UserError, match=words):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("about: [1]", r"about = \[1\]: must be a valid string"),
        ("why: {max_steps: [1]}", r"why.max_steps = \[1\]: must be a valid string"),
        ("rewards: {int_reward_func: much}", "rewards.int_reward_func = 'much': must be a valid number"),
    ],
)
def test_a_value_of_a_wrong_type_becomes_one_sentence(write, text, words):
    with pytest.raises(UserError, match=words):
        load_recipe(write(f"like: tiny-cpu\n{text}"))


@pytest.mark.parametrize("text", ["test_splits=[test", "runs_dir='x", "max_steps"])
def test_a_mistake_in_r1nb_set_becomes_one_sentence(monkeypatch, text):
    monkeypatch.setenv("R1NB_SET", text)
    with pytest.raises(UserError, match="R1NB_SET"):
        load_recipe()


@pytest.mark.parametrize("nothing", ["{}", "null", ""])
def test_a_recipe_like_another_can_drop_the_section_sft(write, nothing):
    assert load_recipe("tiny-r1").sft
    dropped = write(f"like: tiny-r1\nsft: {nothing}")
    assert load_recipe(dropped).sft == {}
    assert load_recipe(write(f"like: {dropped}", "grandchild")).sft == {}
    changed = load_recipe(write("like: tiny-r1\nsft: {max_steps: 3}")).sft
    assert changed == load_recipe("tiny-r1").sft | {"max_steps": 3}


def test_the_caller_and_r1nb_set_can_drop_or_replace_sections(monkeypatch):
    assert load_recipe("tiny-r1", sft=None).sft == load_recipe("tiny-r1", sft={}).sft == {}
    assert load_recipe("tiny-r1", sft={"max_steps": 3}).sft == {"max_steps": 3}
    for text in ("sft=null", "sft={}", "sft="):
        monkeypatch.setenv("R1NB_SET", text)
        assert load_recipe("tiny-r1").sft == {}
    monkeypatch.setenv("R1NB_SET", "sft=null sft.max_steps=5")
    assert load_recipe("tiny-r1").sft == {"max_steps": 5}
    monkeypatch.setenv("R1NB_SET", "lora=null")
    assert load_recipe("tiny-r1").lora is None
    monkeypatch.setenv("R1NB_SET", "'lora={r: 2, lora_alpha: 4, target_modules: all-linear}'")
    assert load_recipe("tiny-cpu").lora.r == 2


def test_only_lora_null_and_not_a_missing_section_trains_all_weights(write):
    raw = load_recipe("tiny-cpu").model_dump()
    raw["why"] = {}
    assert load_recipe(write(yaml.safe_dump(raw | {"lora": None}))).lora is None
    with pytest.raises(UserError, match=r"lacks lora[.]r, lora[.]lora_alpha, lora[.]target_modules"):
        load_recipe(write(yaml.safe_dump(raw | {"lora": {}})))
    del raw["lora"]
    with pytest.raises(UserError, match="lacks lora; see recipes/"):
        load_recipe(write(yaml.safe_dump(raw)))


@pytest.mark.parametrize("key", ["runs_dir", "output.runs_dir"])
def test_training_and_inspector_use_the_same_folder_of_runs(monkeypatch, tmp_path, write, key):
    monkeypatch.setenv("R1NB_SET", f"{key}={tmp_path / 'a'} sft=null rewards='{{int_reward_func: 1.0}}'")
    assert load_recipe("tiny-r1").output.runs_dir == default_runs_dir() == str(tmp_path / "a")
    monkeypatch.setenv("R1NB_SET", f"runs_dir=x output.runs_dir={tmp_path / 'b'} recipe=auto")
    assert load_recipe("tiny-r1").output.runs_dir == default_runs_dir() == str(tmp_path / "b")
    path = write(f"like: tiny-cpu\noutput: {{runs_dir: {tmp_path / 'c'}}}")
    monkeypatch.setenv("R1NB_SET", f"recipe={path}")
    assert load_recipe().output.runs_dir == default_runs_dir() == str(tmp_path / "c")
    monkeypatch.delenv("R1NB_SET")
    assert load_recipe("tiny-r1").output.runs_dir == default_runs_dir() == "runs"


def test_load_recipe_leaves_auto_to_choose_recipe(monkeypatch):
    with pytest.raises(UserError, match=r"choose_recipe\('auto'\)"):
        load_recipe("auto")
    monkeypatch.setenv("R1NB_SET", "recipe=auto max_steps=3")
    recipe = load_recipe("tiny-r1")
    assert (recipe.name, recipe.grpo["max_steps"]) == ("tiny-r1", 3)


def test_local_folders_become_absolute_paths(monkeypatch, tmp_path, write):
    (tmp_path / "mine").mkdir()
    (tmp_path / "tiny-policy").mkdir()  # but the name of the shipped policy comes first
    monkeypatch.chdir(tmp_path)
    assert load_recipe(dataset="mine").data.dataset == str(tmp_path / "mine")
    recipe = load_recipe(write("like: tiny-cpu\nmodel: {model_name: mine}"))
    assert recipe.model.model_name == str(tmp_path / "mine")
    assert load_recipe().model.model_name == "tiny-policy"


def test_the_recipe_of_a_run_is_the_one_it_used(monkeypatch, tmp_path):
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    used = load_recipe("tiny-r1", max_steps=3, runs_dir=str(tmp_path / "gone")).model_dump()
    (run / "recipe.yaml").write_text(yaml.safe_dump(used))
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("R1NB_SET", "max_steps=9 recipe=tiny-cpu")
    assert load_recipe(run).model_dump() == load_recipe(str(run)).model_dump() == used
    assert not runs_folder(used["output"]["runs_dir"]).exists()  # reading does not create it
    assert load_recipe(run, seed=7).grpo["seed"] == 7
    monkeypatch.delenv("R1NB_SET")
    with pytest.raises(UserError, match=r"Unknown recipe '.*gone'"):
        load_recipe(tmp_path / "gone")


def test_a_recipe_name_is_preferred_to_a_folder_of_that_name(monkeypatch, tmp_path):
    (tmp_path / "tiny-cpu").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe("tiny-cpu").name == "tiny-cpu"


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-here/x", "a\0b", 5, None])
def test_what_can_be_no_path_is_named(name):
    refuse = [load_recipe, Run, Run.all]
    refuse += [lambda name: load_recipe(runs_dir=name)] * isinstance(name, str)
    for read in refuse:
        with pytest.raises(UserError, match="cannot be the name of a file or folder"):
            read(name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_recipe_file_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "mine.yaml").write_bytes("like: tiny-cpu\r\nabout: Größe\r\n".encode(encoding))
    assert load_recipe(str(tmp_path / "mine.yaml")).about == "Größe"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_recipe_file_in_another_encoding_is_refused_in_a_sentence(tmp_path, encoding):
    (tmp_path / "mine.yaml").write_bytes("like: tiny-cpu\nabout: Größe\n".encode(encoding))
    with pytest.raises(UserError, match=r"is not text in UTF-8 \(at position \d+\): save it again as UTF-8"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_a_recipe_is_read_in_a_locale_that_is_not_utf_8(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("like: tiny-cpu\nabout: Größe\n".encode())
    path = str(tmp_path / "mine.yaml")
    code = f"from r1nb.recipes.loading import *; print(ascii(load_recipe({path!r}).about))"
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=plain, check=False
    )
    assert done.stdout.strip() == r"'Gr\xf6\xdfe'", done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "grpo: {max_prompt_length: 128}",
            "Unknown key grpo.max_prompt_length: it belongs in the section data.",
        ),
        ("data: {num_generations: 4}", "Unknown key data.num_generations: it belongs in the section grpo."),
        ("sft: {max_steps: 2, beta: 0.1}", "Unknown key sft.beta: it belongs in the section grpo."),
        ("lora: {load_in_4bit: true}", "Unknown key lora.load_in_4bit: it belongs in the section model."),
        ("learning_rate: 0.1", "Unknown key learning_rate: it belongs in the section grpo."),
        ("runs_dir: here", "Unknown key runs_dir: it belongs in the section output."),
        ("grpo: {vllm_guided_regex_of_old: 1}", "has none of that name."),
        ("grpo: {use_liger_loss: true}", "Unknown key grpo.use_liger_loss; did you mean 'use_liger_kernel'?"),
    ],
)
def test_a_key_of_another_section_or_version_is_named(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(f"like: tiny-cpu\n{text}")
    with pytest.raises(UserError) as caught:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert words in str(caught.value)
