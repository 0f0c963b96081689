"""Load a trained policy from the folder of a run, an adapter or a model."""

from pathlib import Path

from r1nb.errors import UserError, say_once
from r1nb.machine.engine import fall_back, prepare_unsloth
from r1nb.machine.model_files import load_config
from r1nb.policy.cards import Card, read_card
from r1nb.policy.loading import load_policy
from r1nb.recipes.loading import default_runs_dir, environment_overrides, load_recipe, recipe_of_run
from r1nb.recipes.recipe import build_recipe, known_rewards
from r1nb.recipes.settings import ModelSettings
from r1nb.runs.run import Run

LONGEST = 4096  # tokens of prompt and completion for a model that comes without a recipe


def load_trained(folder: Path | str | None = None, base: Path | str | None = None):
    """(policy, recipe, folder) from a run folder, an adapter folder or a whole model's folder.

    None takes the newest finished run. The recipe is that of the run; outside a run it is the recipe on the
    card, and if there is no card, `tiny-cpu` with the model of the folder. `base` is the folder or name of an
    adapter's base model, if it lies elsewhere than where the adapter was trained.
    """
    if folder is None:
        run = Run.latest(default_runs_dir())
        if run is None:
            raise UserError("There is no finished run yet: run notebook 03 or `make train` first.")
        folder = run.folder
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of an adapter, a run or a merged model.")
    if run := _run_of(folder):
        trained = run.trained
    else:  # of a run with a torn recipe, or outside a run
        trained = next((path for path in (folder / "adapter", folder / "model") if path.is_dir()), folder)
    is_adapter = (trained / "adapter_config.json").is_file()
    if not is_adapter and not (trained / "config.json").is_file():
        raise UserError(f"{folder} has neither adapter_config.json nor config.json: not an adapter or model.")
    recipe = _recipe_of(trained, is_adapter)
    if is_adapter:
        recipe = with_base(recipe, base)
    elif base is not None:
        raise UserError(
            f"{trained.name} is a whole model, which needs no base model: leave out base={base!r}."
        )
    prepare_unsloth(recipe.model)
    import torch

    if torch.cuda.is_available():
        recipe.grpo.pop("use_cpu", None)
        recipe = fall_back(recipe)
    policy = load_policy(recipe, to_train=False)
    if is_adapter:
        policy.load_adapter(trained, recipe.layout)
    else:
        policy.folder = trained
    return policy, recipe, trained


def with_base(recipe, base: Path | str | None = None):
    """The recipe with the base model `base`; if none is given and the recipe's is not found, R1NB_SET's."""
    if base is None:
        try:
            load_config(recipe.model.model_name)
            return recipe
        except UserError as error:
            given = environment_overrides()
            base = given.get("model_name", given.get("model.model_name"))
            if base is None:
                raise UserError(
                    f"{str(error).rstrip('.')}; if the base model lies elsewhere now, set "
                    "R1NB_SET='model_name=...' to its folder or name, or give load_trained(..., base=...)."
                ) from None
    model = ModelSettings(**dict(recipe.model) | {"model_name": str(base)})
    return recipe.model_copy(update={"model": model})


def _run_of(folder: Path) -> Run | None:
    """The run of a folder; None if the folder is not a run, or if its recipe is torn, which is said."""
    if not (folder / "recipe.yaml").is_file():
        return None
    run = Run(folder)
    try:
        run.recipe  # noqa: B018  # raises if it is torn
    except UserError as error:
        say_once(f"{error} Until then the card of its weights is read instead.")
        return None
    return run


def _recipe_of(trained: Path, is_adapter: bool):
    """The recipe for the folder of an adapter or a model: from its run, else from its card, else tiny-cpu."""
    import torch

    in_run = _run_of(trained.parent)
    card = None if in_run else read_card(trained)
    recipe = recipe_of_run(in_run) if in_run else _recipe_on_card(card, trained.name)
    changes = dict(card.model) if card else {}
    if not is_adapter:  # plain weights; a whole model of float32 stays so on a CPU
        own = str(load_config(str(trained)).dtype)
        dtype = "float32" if own.endswith("float32") and not torch.cuda.is_available() else None
        changes |= {"model_name": str(trained), "load_in_4bit": False, "dtype": dtype}
        if not in_run and not card:
            longest = load_config(str(trained)).get_text_config().max_position_embeddings
            changes["max_seq_length"] = min(LONGEST, longest)
    changed = {"model": recipe.model.model_copy(update=changes)}
    if card:
        changed["data"] = recipe.data.model_copy(update={"layout": card.layout})
    if card and card.chat_template_kwargs:
        changed["grpo"] = recipe.grpo | {"chat_template_kwargs": card.chat_template_kwargs}
    if recipe.lora:  # the trained adapter already contains that one
        changed["lora"] = recipe.lora.model_copy(update={"start_from": None})
    return recipe.model_copy(update=changed)


def _recipe_on_card(card: Card | None, name: str):
    """The recipe on the card of a folder outside its run; tiny-cpu if there is none or it is refused.

    Rewards defined only in the run's notebook are left out. A recipe of another r1nb version may be refused.
    """
    default, said = load_recipe(), f"The recipe on the card of {name}"
    if not card or not card.recipe:
        return default
    raw, rewards = card.recipe, card.recipe.get("rewards")
    if isinstance(rewards, dict):
        raw = raw | {"rewards": known_rewards(rewards, said)}
    try:
        return build_recipe(raw)
    except UserError as error:
        print(f"{said} is refused: {error} {default.name} is used instead, except for model and layout.")
        return default
