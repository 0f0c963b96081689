"""The cards of an adapter or a model: r1nb.json, which is checked on loading, and README.md for the Hub."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from r1nb.errors import UserError
from r1nb.machine.model_files import licence
from r1nb.paths import __version__, write_json
from r1nb.recipes.settings import ModelSettings
from r1nb.runs.run import CARD
from r1nb.text.prompts import LAYOUTS, REASONING, Layout

NAME = re.compile(r"(?!.*\.\.)[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a model or dataset on the Hub
ADDRESS = re.compile(r"\w+://\S+")
README = Path(__file__).with_name("model_card.md")


def prompt_format(tokenizer, layout: Layout) -> str:
    """The prompt that this policy gets, with {question} and {date} in place of the question and the day."""
    messages = layout.build_messages("{question}")
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, strftime_now=lambda form: "{date}"
    )


def short_name(name: str) -> str:
    """The name of a model or dataset; for a local path only its last part."""
    path = os.path.expanduser(name)
    return Path(path).name if os.path.isabs(path) or os.path.exists(path) else name


def without_places(value):
    """A recipe, or a value in it, without paths and URLs: a path becomes its last part, a URL becomes None.

    The paths of a machine are private. A judge whose URL came with somebody's adapter must not be sent
    OPENAI_API_KEY.
    """
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_places(each) for each in value]
    if isinstance(value, str):
        return None if ADDRESS.fullmatch(value) else short_name(value)
    return value


def write_cards(folder: Path, policy, run=None, layout: Layout = REASONING) -> None:
    """Write r1nb.json and README.md for trained weights; a run adds its recipe, data and accuracy.

    If the base model is a local folder, only r1nb.json contains its path, because load_trained needs it.
    """
    if run:
        layout = LAYOUTS[run.recipe["data"].get("layout", "reasoning")]
    name = policy.model_settings.model_name
    card = {
        "model": dict(policy.model_settings),
        "base_fingerprint": policy.fingerprint(),
        "base_licence": licence(name),
        "layout": layout.name,
        "prompt": prompt_format(policy.tokenizer, layout),
        "chat_template_kwargs": policy.chat_template_kwargs,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "r1nb": __version__,
    }
    if run:
        recipe = {key: without_places(values) for key, values in run.recipe.items() if key != "output"}
        card |= {"recipe": recipe, "data": run.environment.get("data"), "accuracy": run.evaluation()}
    _write_readme(folder / "README.md", card)
    write_json(folder / CARD, card)  # last: it marks the folder as complete


def _write_readme(path: Path, card: dict) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    name, recipe = card["model"]["model_name"], card.get("recipe")
    whole = bool(recipe) and recipe["lora"] is None
    dataset = recipe["data"]["dataset"].partition(":")[0] if recipe else ""
    data = ModelCardData(
        base_model=name if NAME.fullmatch(name) else None,
        library_name="transformers" if whole else "peft",
        license=card["base_licence"] if card["base_licence"] != "unknown" else None,
        datasets=[dataset] if "/" in dataset and NAME.fullmatch(dataset) else None,
        tags=[*([] if whole else ["lora"]), "grpo", "trl", "r1nb"],
    )
    ModelCard.from_template(data, str(README), base=Path(name).name, whole=whole, **card).save(path)


class Card(BaseModel, extra="allow"):
    """The fields of r1nb.json that are read; older cards have no layout, prompt or recipe."""

    model: ModelSettings
    base_fingerprint: str
    layout: Literal["reasoning", "think"] = "reasoning"
    prompt: str = ""
    chat_template_kwargs: dict | None = None
    recipe: Annotated[dict, AfterValidator(without_places)] = Field({})


def read_card(folder: Path) -> Card | None:
    """Read and check r1nb.json in the folder of an adapter or a model; None if there is none."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        why = f"{'.'.join(map(str, error.errors()[0]['loc']))} {error.errors()[0]['msg']}".strip()
        raise UserError(f"{CARD} in {folder.name} is damaged ({why}): remove it to load anyway.") from None
