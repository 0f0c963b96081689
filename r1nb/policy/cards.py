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
from r1nb.policy.usage import QUESTION, python_lines, to_quantize
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
        return {without_places(key): without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_places(each) for each in value]
    if isinstance(value, str):
        return None if ADDRESS.fullmatch(value) else short_name(value)
    return value


def write_cards(folder: Path, policy, run=None, layout: Layout = REASONING) -> None:
    """Write r1nb.json and README.md for trained weights; a run adds its recipe, data and accuracy.

    If the base model is a local folder, only r1nb.json contains its path, because load_trained needs it.
    """
    card = make_card(policy, run, layout)
    (folder / "README.md").write_text(readme(card, folder.name), encoding="utf-8")
    write_json(folder / CARD, card)  # last: it marks the folder as complete


def make_card(policy, run=None, layout: Layout = REASONING) -> dict:
    """The contents of r1nb.json."""
    if run:
        layout = LAYOUTS[run.recipe["data"].get("layout", "reasoning")]
    card = {
        "model": dict(policy.model_settings),
        "adapter": policy.has_adapter,
        "base_fingerprint": policy.fingerprint(),
        "base_licence": licence(policy.model_settings.model_name),
        "layout": layout.name,
        "prompt": prompt_format(policy.tokenizer, layout),
        "chat_template_kwargs": policy.chat_template_kwargs,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "r1nb": __version__,
    }
    if run:
        recipe = {key: without_places(values) for key, values in run.recipe.items() if key != "output"}
        accuracy, changed = without_places(run.evaluation()), _changes(run)
        card |= {"recipe": recipe, "data": run.environment.get("data")}
        card |= {"accuracy": accuracy, "changes": changed}
    return card


def _changes(run) -> dict:
    """{test split: {"n": problems, "won": wrong before training and right after it, "lost": the opposite,
    "fell": {kind of problem: [right before, right after, all]} for the kinds of which fewer are right}}.

    Right is lenient here: a policy that does not know the format yet would have nothing to lose otherwise.
    """
    before, after, changes = run.graded("before"), run.graded("after"), {}
    for split in before.keys() & after.keys():
        pairs = [(a.kind, a.lenient, b.lenient) for a, b in zip(before[split], after[split], strict=True)]
        pairs = [pair for pair in pairs if None not in pair[1:]]
        kinds = {}
        for kind in sorted({kind for kind, *_ in pairs if kind}):
            rows = [verdicts for other, *verdicts in pairs if other == kind]
            kinds[kind] = [sum(a for a, _ in rows), sum(b for _, b in rows), len(rows)]
        changes[split] = {
            "n": len(pairs),
            "won": sum(b and not a for _, a, b in pairs),
            "lost": sum(a and not b for _, a, b in pairs),
            "fell": {kind: counts for kind, counts in kinds.items() if counts[1] < counts[0]},
        }
    return changes


def readme(card: dict, name: str) -> str:
    """The model card, README.md, from the contents of r1nb.json; `name` is the folder's or repository's."""
    from huggingface_hub import ModelCard, ModelCardData

    base, recipe = card["model"]["model_name"], card.get("recipe")
    whole = not card.get("adapter", not recipe or recipe["lora"] is not None)  # older cards do not say
    dataset = recipe["data"]["dataset"].partition(":")[0] if recipe else ""
    data = ModelCardData(
        base_model=base if "/" in base and NAME.fullmatch(base) else None,
        library_name="transformers" if whole else "peft",
        pipeline_tag="text-generation",
        license=card["base_licence"] if card["base_licence"] != "unknown" else None,
        datasets=[dataset] if "/" in dataset and NAME.fullmatch(dataset) else None,
        tags=[*([] if whole else ["lora"]), "grpo", "trl", "r1nb"],
    )
    most = recipe["grpo"]["max_completion_length"] if recipe else 1024
    messages = LAYOUTS[card["layout"]].build_messages(QUESTION)
    in_4bit = not whole and to_quantize(card["model"])
    lines = python_lines(None if whole else short_name(base), name, name, messages, most, in_4bit)
    made = {"base": short_name(base), "whole": whole, "lines": lines, "name": name}
    made["on_hub"] = bool(data.base_model)
    return str(ModelCard.from_template(data, str(README), **made, **card))


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
