"""The export of a trained policy as a model that needs no PEFT: what it refuses."""

import pytest

from r1nb.errors import UserError
from r1nb.policy.export import save_gguf, save_merged
from r1nb.policy.loading import attach_lora, load_policy


def test_an_export_does_not_overwrite_a_folder(tiny_recipe, tmp_path):
    policy = load_policy(tiny_recipe)
    attach_lora(policy, tiny_recipe)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds files already"):
        save_merged(policy, tmp_path)
    with pytest.raises(UserError, match="Unsloth writes GGUF"):
        save_gguf(policy, tmp_path / "gguf")
