"""The keys of a recipe's sections, which are read from TRL's source, agree with TRL's classes."""

import dataclasses
import typing

import pytest
from pydantic import TypeAdapter
from trl import GRPOConfig, SFTConfig

from r1nb.recipes.settings import RESERVED, GrpoSettings, SftSettings, section_keys

TRL = {"grpo": (GRPOConfig, GrpoSettings), "sft": (SFTConfig, SftSettings)}


@pytest.mark.parametrize("section", TRL)
def test_all_keys_of_trl_and_only_these_are_known(section):
    config, _ = TRL[section]
    keys = {field.name for field in dataclasses.fields(config) if field.init}
    assert keys - RESERVED == set(section_keys(section))
    assert {"per_device_train_batch_size", "optim", "gradient_checkpointing_kwargs"} <= keys


@pytest.mark.parametrize("section", TRL)
def test_each_key_has_the_type_that_trl_gives_it(section):
    config, ours = TRL[section]
    hints, fields = typing.get_type_hints(config), section_keys(section)
    for name in fields.keys() - ours.model_fields.keys():
        own_classes = "transformers" in str(hints[name]) or "accelerate" in str(hints[name])
        # Their own classes are enumerations of texts.
        assert own_classes or fields[name].annotation == hints[name], name
        assert fields[name].annotation != typing.Any


@pytest.mark.parametrize("section", TRL)
def test_each_type_accepts_trls_default(section):
    """Except max_steps, whose default of -1 means that epochs count, and num_train_epochs."""
    config, _ = TRL[section]
    fields, checked = section_keys(section), []
    for field in dataclasses.fields(config):
        if field.name in RESERVED | {"max_steps", "num_train_epochs"}:
            continue
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default
        known = fields[field.name]
        accepted = TypeAdapter(typing.Annotated[known.annotation, known]).validate_python(default)
        assert accepted == default, field.name
        checked.append(field.name)
    assert len(checked) > 100
