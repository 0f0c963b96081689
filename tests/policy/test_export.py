"""The export of a trained policy as a model that needs no PEFT: what it refuses."""

import pytest

from r1nb.errors import UserError
from r1nb.policy import export
from r1nb.policy.export import save_gguf, save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe


def test_an_export_does_not_overwrite_a_folder(tiny_recipe, tmp_path):
    policy = load_policy(tiny_recipe)
    attach_lora(policy, tiny_recipe)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds files already"):
        save_merged(policy, tmp_path)
    with pytest.raises(UserError, match="Unsloth writes GGUF"):
        save_gguf(policy, tmp_path / "gguf")


@pytest.fixture
def headed(tiny_recipe):
    """A policy whose adapter changes lm_head, which shares its weights with the embedding."""
    tiny_recipe.lora.target_modules = ["lm_head"]
    policy = load_policy(tiny_recipe)
    attach_lora(policy, tiny_recipe)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data += 0.05
    return policy


def test_a_merged_model_with_other_logits_is_not_written(headed, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_tied_under_adapter", lambda model: False)  # as if this were forgotten
    with pytest.raises(UserError, match=r"merged is not written: after merging, the logits differ by .*%"):
        save_merged(headed, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_export_that_fails_leaves_no_folder(headed, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(headed.tokenizer, "save_pretrained", fail)  # after the weights
    with pytest.raises(UserError, match=r"merged could not be written: .*No space left"):
        save_merged(headed, tmp_path / "new" / "merged")
    assert not list((tmp_path / "new").iterdir())


def test_an_adapter_that_peft_cannot_merge_leaves_no_folder(tmp_path):
    from peft import LoraConfig, get_peft_model

    policy = load_policy(load_recipe())
    config = LoraConfig(target_modules=["q_proj"], lora_bias=True, task_type="CAUSAL_LM")
    policy.model = get_peft_model(policy.model, config)
    with pytest.raises(UserError, match="merged could not be written: Impossible to merge"):
        save_merged(policy, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_an_export_goes_into_an_empty_folder_and_not_over_a_file(headed, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert (save_merged(headed, tmp_path / "empty") / "config.json").is_file()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file holds files already"):
        save_merged(headed, tmp_path / "file")
    assert headed.has_adapter


def test_unsloth_does_not_merge_into_shared_weights(headed, tmp_path):
    headed.model_settings.engine = "unsloth"
    with pytest.raises(UserError, match="Unsloth would merge it wrongly: load it with engine='transformers'"):
        save_gguf(headed, tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


def test_a_policy_without_an_adapter_has_nothing_to_merge(tiny_recipe, tmp_path):
    with pytest.raises(UserError, match="no adapter to merge: its weights are a plain model already"):
        save_merged(load_policy(tiny_recipe), tmp_path / "merged")
