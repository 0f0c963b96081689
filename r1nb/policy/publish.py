"""Push a saved adapter or model to the Hugging Face Hub: its files and cards, and nothing else."""

import json
from pathlib import Path

from r1nb.errors import UserError, first_line
from r1nb.policy.cards import NAME, make_card, readme, without_places
from r1nb.runs.run import CARD

# Of the files in the folder, only these are pushed. The two cards are written anew.
FILES = ("adapter_config.json", "adapter_model.safetensors", "config.json", "generation_config.json",
         "model*.safetensors", "model.safetensors.index.json", "chat_template.jinja", "tokenizer.json",
         "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
         "merges.txt")  # fmt: skip


def push(policy, folder: Path, name: str, private: bool) -> str:
    """Push the policy's saved `folder` to the repository `name` (owner/model); returns its address.

    Raises UserError before anything is sent if nobody is logged in or the repository is public already
    although `private` is asked for.
    """
    from httpx import HTTPError
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if "/" not in name or not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not the name of a repository: write owner/model, for example me/first.")
    if not get_token():
        raise UserError(
            "Nobody is logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    card = folder / CARD
    card = without_places(json.loads(card.read_text("utf-8")) if card.is_file() else make_card(policy))
    texts = {CARD: json.dumps(card, indent=1) + "\n", "README.md": readme(card, name)}
    files = [path for pattern in FILES for path in sorted(folder.glob(pattern))]
    contents = {path.name: path for path in files} | {key: text.encode() for key, text in texts.items()}
    hub = HfApi()
    try:
        hub.whoami()
        address = hub.create_repo(name, private=private, exist_ok=True)
        hidden = hub.model_info(name).private  # it may have existed before
        if private and not hidden:
            raise UserError(f"{name} is public: choose another name, or push with private=False.")
        operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
        hub.create_commit(name, operations, commit_message="A model trained with r1nb")
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} was not pushed: {first_line(error)}") from None
    print(f"Pushed to {address} ({'private' if hidden else 'public'}): {', '.join(contents)}.")
    return str(address)
