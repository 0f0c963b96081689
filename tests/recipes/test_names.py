"""The name of a recipe, which a user may set: which names are accepted, and the folders they give."""

import re
from ast import literal_eval

import pytest

from r1nb.errors import UserError
from r1nb.recipes.loading import default_runs_dir, load_recipe, read_overrides
from r1nb.recipes.settings import LONGEST
from r1nb.training.resume import new_run

PARTY = "\U0001f389"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe file and returns its path."""

    def write(text, name="mine"):
        (tmp_path / f"{name}.yaml").write_text(text)
        return str(tmp_path / f"{name}.yaml")

    return write


def test_the_caller_names_a_run(tmp_path):
    recipe = load_recipe(name="first try", runs_dir=str(tmp_path))
    assert (recipe.name, new_run(recipe).name) == ("first-try", "first-try-001")
    assert load_recipe("tiny-r1", name=None).name == "tiny-r1"
    assert load_recipe(tmp_path / "first-try-001").name == "first-try"
    assert load_recipe(tmp_path / "first-try-001", name="again").name == "again"


def test_r1nb_set_names_a_run(monkeypatch):
    monkeypatch.setenv("R1NB_SET", 'name="of the environment" max_steps=5')
    recipe = load_recipe(name="first try")
    assert (recipe.name, recipe.grpo["max_steps"]) == ("of-the-environment", 5)
    assert default_runs_dir() == "runs"
    monkeypatch.setenv("R1NB_SET", "namee=x")
    with pytest.raises(UserError, match=r"Unknown setting 'namee'; did you mean 'name'\?"):
        load_recipe()


def test_a_file_names_its_runs_or_has_the_name_itself(write):
    assert load_recipe(write("like: tiny-cpu")).name == "mine"
    assert load_recipe(write("like: tiny-cpu\nname:")).name == "mine"
    named = write("like: tiny-cpu\nname: from the file")
    assert load_recipe(named).name == "from-the-file"
    assert load_recipe(named, name="by the caller").name == "by-the-caller"
    assert load_recipe(write(f"like: {named}", "child")).name == "child"
    hidden = write("like: tiny-cpu", ".hidden")
    with pytest.raises(UserError, match=r"'\.hidden', because the name begins with '\.': set name='hidden'"):
        load_recipe(hidden)
    assert load_recipe(hidden, name="seen").name == "seen"


@pytest.mark.parametrize("text", ["5", "no", "null", "2026-11-26", "3e-4", "[x", "a, b & c = d", "#1"])
def test_on_a_command_line_every_name_is_text(text):
    given = read_overrides([f"name={text}"], "The command line")
    assert load_recipe(**given).name == text.replace(" ", "-")


@pytest.mark.parametrize(
    ("name", "why", "other"),
    [
        ("", "is empty", "first-try"),
        (" \n", "is empty", "first-try"),
        ("a/b", "holds '/'", "a-b"),
        ("..\\a", r"holds '\\'", "a"),
        ("is 3 < 4?", "holds '<'", "is-3-4"),
        ('"x"', "holds '\"'", "x"),
        (f"try {PARTY}", f"holds '{PARTY}'", "try"),
        (PARTY, f"holds '{PARTY}'", "first-try"),
        ("right\u202eleft", r"holds '\u202e'", "right-left"),
        ("a\0b", r"holds '\x00'", "a-b"),
        ("-rf", "begins with '-'", "rf"),
        ("~me", "begins with '~'", "me"),
        ("nul.txt", "begins like Windows' device 'nul'", "nul-txt"),
        ("a b" * 25, "has 75 characters, more than 60", "a-ba-b" * 10),
    ],
)
def test_a_name_that_some_system_refuses_becomes_a_sentence_with_another_name(name, why, other):
    with pytest.raises(UserError) as caught:
        load_recipe(name=name)
    message = str(caught.value)
    assert f", because the name {why}: set name=" in message
    assert "\n" not in message
    assert literal_eval(re.search(r"set name=('.*')\.$", message)[1]) == other
    assert load_recipe(name=other).name == other


def test_a_name_that_is_no_text_becomes_a_sentence():
    with pytest.raises(UserError, match="name = 5: must be a valid string"):
        load_recipe(name=5)


@pytest.mark.parametrize(
    "name",
    ["mine (1)", "Größe", "GSM8K – zweiter", "nul", "lr=3e-4, b=1", "v1.2_x", "小", "नमस्ते"],  # noqa: RUF001
)
def test_other_names_are_kept_except_for_spaces(name):
    assert load_recipe(name=f"  {name}\n ").name == load_recipe(name=name).name == name.replace(" ", "-")


def test_hyphens_between_spaces_and_the_form_of_unicode_make_no_other_name():
    assert load_recipe(name="Gro\u0308\u00dfe - zwei").name == "Gr\u00f6\u00dfe-zwei"


def test_the_longest_name_makes_a_run_folder(tmp_path):
    wide = load_recipe(name="\U00020000" * LONGEST, runs_dir=str(tmp_path))  # four bytes each
    assert new_run(wide).folder.is_dir()
