"""Cards by name; the times that texts state are those of the plan; the shapes of models are right."""

import json
import re

import pytest
from shapes import CARDS as REAL

from r1nb.errors import UserError
from r1nb.machine.cards import CARDS, machine_with, speed_of
from r1nb.machine.hardware import LADDER, Machine, suggest_recipe
from r1nb.machine.known_models import SHAPES, known_as, published_config
from r1nb.machine.memory import empty_model
from r1nb.machine.plan import plan_run
from r1nb.paths import CHECKOUT, NOTEBOOKS
from r1nb.recipes.loading import load_recipe, recipe_names

STATED = re.compile(r"(\d+ to \d+ (?:hours|minutes)) on an? ([\w-]+)")


@pytest.mark.parametrize("card", CARDS)
def test_each_card_has_a_recipe_that_fits_and_a_time(card):
    machine = machine_with(card.upper())
    made = plan_run(load_recipe(suggest_recipe(machine)[0]), machine)
    assert made.fits
    assert re.fullmatch(r"\d+ to \d+ (hours|minutes)", made.duration)


def test_a_card_is_found_by_the_name_that_cuda_gives_it():
    for machine in (*REAL.values(), *map(machine_with, CARDS)):
        assert speed_of(machine) is not None
    assert speed_of(Machine(8, 64, "NVIDIA A100 80GB PCIe", 85.1)) == CARDS["a100-80"][3:]
    assert speed_of(Machine(8, 64, "NVIDIA A100-PCIE-40GB", 42.3)) == CARDS["a100-40"][3:]
    assert speed_of(machine_with("48")) is None


@pytest.mark.parametrize(("text", "gb"), [("24", 24.0), ("23.6", 23.6), ("24GB", 24.0), ("24 gb", 24.0)])
def test_a_card_can_be_a_number_of_gb(text, gb):
    assert machine_with(text).gpu_memory_gb == gb


@pytest.mark.parametrize("text", ["", "-24", "nan", "1e9", "24 TB", "a100"])
def test_other_texts_are_no_card(text):
    with pytest.raises(UserError, match=f"Unknown card {text!r}.* Cards: t4, l4, .*, or a number of GB"):
        machine_with(text)


PARAMETERS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "unsloth/Llama-3.2-1B-Instruct": 1_235_814_400,
    "unsloth/Llama-3.2-3B-Instruct": 3_212_749_824,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "unsloth/Qwen3-0.6B": 596_049_920,
    "unsloth/Qwen3-1.7B-unsloth-bnb-4bit": 1_720_574_976,
    "unsloth/Qwen3-4B-bnb-4bit": 4_022_468_096,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-4b-it": 4_300_079_472,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_shapes_give_the_published_numbers_of_parameters(name):
    assert empty_model(published_config(name)).num_parameters() == PARAMETERS[name]


def test_each_shape_is_compared_with_a_published_number():
    assert {known_as(name) for name in PARAMETERS} == set(SHAPES)


@pytest.mark.parametrize(
    "name", ["someone/Qwen3-4B", "Qwen3-4B", "unsloth/Qwen3-4B-Base", "/models/Qwen3-4B"]
)
def test_a_model_of_another_name_is_not_taken_for_a_known_one(name):
    assert published_config(name) is None


def test_a_local_folder_is_not_taken_for_a_known_model(monkeypatch, tmp_path):
    (tmp_path / "unsloth/Qwen3-4B").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert known_as("unsloth/Qwen3-4B") == ""


def test_no_plan_of_a_recipe_that_ships_needs_a_network():
    models = {load_recipe(name).model.model_name for name in recipe_names()}
    assert {name for name in models if not published_config(name)} == {"tiny-policy", "tiny-countdown"}


def stated(text: str, recipe=None) -> list[str]:
    """Compare the times in a text with the plan of a recipe, or of the card's own; return the cards."""
    found = STATED.findall(" ".join(text.split()))
    for time, card in found:
        machine = machine_with(card)
        assert plan_run(recipe or load_recipe(suggest_recipe(machine)[0]), machine).duration == time, text
    return [card for _, card in found]


def test_recipes_and_readme_state_the_times_of_the_plan():
    for name in recipe_names():
        recipe = load_recipe(name)
        cards = stated(" ".join([recipe.about, *recipe.why.values()]), recipe)
        assert bool(cards) == (name in LADDER), name
    assert stated((CHECKOUT / "README.md").read_text()) == ["A100-40"]


def test_no_page_states_a_time_on_a_card_in_other_words():
    pages = [*NOTEBOOKS.glob("*.ipynb"), CHECKOUT / "README.md", CHECKOUT / "data/results/README.md"]
    for page in pages:
        text = page.read_text()
        if page.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert not re.search(r"(an|one|the) (evening|night|afternoon)|coffee break", text), page
