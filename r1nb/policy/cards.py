"""The cards of an adapter or a model: r1nb.json, by which it is checked, and README.md for the Hub."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from r1nb.errors import UserError
from r1nb.machine.model_files import licence
from r1nb.paths import __version__, write_json
from r1nb.recipes.settings import ModelSettings
from r1nb.runs.run import CARD
from r1nb.text.prompts import LAYOUTS, REASONING, Layout

NAME = re.compile(r"(?!.*\.\.)[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a model or dataset on the Hub


def prompt_format(tokenizer, layout: Layout) -> str:
    """How this policy is asked: the prompt of a question called {question}, on a day called {date}."""
    messages = layout.build_messages("{question}")
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, strftime_now=lambda form: "{date}"
    )


def write_cards(folder: Path, policy, run=None, layout: Layout = REASONING) -> None:
    """Write r1nb.json and README.md of what was trained, with what its run, if it has one, says of it."""
    if run:
        layout = LAYOUTS[run.recipe["data"].get("layout", "reasoning")]
    name = policy.model_settings.model_name
    card = {
        "model": dict(policy.model_settings),
        "base_fingerprint": policy.fingerprint(),
        "base_licence": licence(name),
        "layout": layout.name,
        "prompt": prompt_format(policy.tokenizer, layout),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "r1nb": __version__,
    }
    if run:
        recipe = {key: value for key, value in run.recipe.items() if key != "output"}
        # Of a local dataset only the name: where it lies is nobody else's business.
        recipe["data"] = recipe["data"] | {"dataset": short_name(recipe["data"]["dataset"])}
        recipe["model"] = recipe["model"] | {"model_name": short_name(name)}
        card |= {"recipe": recipe, "data": run.environment.get("data"), "accuracy": _accuracy(run)}
    _write_readme(folder / "README.md", card)
    write_json(folder / CARD, card)  # last: with it the adapter is whole


def short_name(name: str) -> str:
    """A model or dataset as others know it: of a local path the last part."""
    return Path(name).name if Path(name).expanduser().exists() or Path(name).is_absolute() else name


def _accuracy(run) -> dict:
    keys = ("n", "strict", "strict_interval", "lenient", "format")
    return {
        split: {moment: {key: summary[key] for key in keys} for moment, summary in moments.items()}
        for split, moments in run.evaluation().items()
    }


def _write_readme(path: Path, card: dict) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    name, recipe = short_name(card["model"]["model_name"]), card.get("recipe")
    known = card["base_licence"] if card["base_licence"] != "unknown" else None
    what, library, lora = "A LoRA adapter for", "peft", ["lora"]
    if recipe and recipe["lora"] is None:
        what, library, lora = "All weights trained of", "transformers", []
    dataset = recipe["data"]["dataset"] if recipe else ""
    on_hub = "/" in dataset and NAME.fullmatch(dataset)
    data = ModelCardData(
        base_model=name if NAME.fullmatch(name) else None, library_name=library, license=known,
        datasets=[dataset] if on_hub else None, tags=[*lora, "grpo", "trl", "r1nb"],
    )  # fmt: skip
    text = f"# {what} {Path(name).name}\n\n"
    text += f"Trained with GRPO by r1nb {card['r1nb']}, {card['date']}.\n"
    if recipe:
        text += f"\nRecipe `{recipe['name']}`, dataset `{Path(dataset).name}`, seed "
        text += f"{recipe['grpo']['seed']}; all settings are in r1nb.json.\n"
    for split, moments in (card.get("accuracy") or {}).items():
        for moment, s in moments.items():
            if s["strict"] is not None:
                low, high = s["strict_interval"]
                text += f"\n- {split}, {s['n']} problems, {moment}: {s['strict']:.1%} strict "
                text += f"[{low:.1%}, {high:.1%}], format {s['format']:.1%}"
    text += f"\n\nThe base's licence ({card['base_licence']}) holds for this too. It answers prompts of "
    text += f"this form:\n\n```\n{card['prompt']}\n```\n"
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(path)


def read_card(folder: Path) -> dict:
    """r1nb.json of an adapter's folder, {} without one; its model settings are checked."""
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text())
        settings = ModelSettings.model_validate(card["model"])
        if not isinstance(card["base_fingerprint"], str) or card.get("layout", "reasoning") not in LAYOUTS:
            raise ValueError("fingerprint or layout")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{CARD} in {folder.name} is damaged ({type(error).__name__}): take it away to load the adapter "
            "unchecked."
        ) from None
    return {"layout": "reasoning"} | card | {"model": dict(settings)}
