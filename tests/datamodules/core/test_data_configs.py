"""conf/data: every file lists every option of its data module, and names none that is not there."""

import inspect
from dataclasses import fields

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from datamodules.core.dataset import SPLITS
from datamodules.readers import READERS
from tests.configs import choices, data_config


def options(data_module):
    """Keyword-only parameters of a class and of those it passes `**common` on to."""
    found = set()
    for cls in data_module.__mro__:
        if cls.__module__.startswith("datamodules"):
            parameters = inspect.signature(cls.__init__).parameters.values()
            found |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return found


@pytest.fixture(params=choices("data"))
def config(request):
    return OmegaConf.to_container(data_config(request.param), resolve=False)


def test_every_option_is_listed(config):
    data_module = get_class(config["_target_"])
    listed = set(config) - {"_target_", "_convert_"}
    assert listed == options(data_module) | set(data_module.available_modalities)


def test_every_option_of_a_modality_is_listed(config):
    for modality in get_class(config["_target_"]).available_modalities:
        expected = {field.name for field in fields(READERS[modality])}
        if "DigitsDataModule" in config["_target_"]:
            expected -= {"resize", "max_pixels"}  # the scans have one size
        assert set(config[modality]) == expected


def test_every_modality_can_be_made_missing_and_augmented_without_a_plus(config):
    offers = set(get_class(config["_target_"]).available_modalities)
    if not offers:
        pytest.skip("sequences without modalities")
    assert {split: set(chances) for split, chances in config["missing"].items()} == dict.fromkeys(
        SPLITS, offers
    )
    assert set(config["augment"]) == offers
    assert set(config["transform"]) == offers
