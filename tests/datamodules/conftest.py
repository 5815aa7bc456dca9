"""What the data tests share: data modules built from their yaml, and the real files if there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.configs import data_config
from tests.datamodules.sentences import packed  # noqa: F401, a fixture
from tests.datamodules.tables import make_manifest, rows, table  # noqa: F401, fixtures

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def make_data(tmp_path):
    """make_data("digits", modalities=[…], **overrides) → the data module of conf/data/digits.yaml.

    Overrides are merged into the yaml, as Hydra's are; a key that it does not list is an error.
    """

    def make(name, *, modalities=None, seed=0, **overrides):
        data = data_config(name)
        if modalities is not None:  # sequences have none
            data.modalities = modalities
        data.seed = seed
        OmegaConf.set_struct(data, True)
        data = OmegaConf.merge(data, overrides)
        config = OmegaConf.create({"paths": {"data_dir": str(tmp_path)}})
        config.data = data
        return instantiate(config.data)

    return make


@pytest.fixture
def real_data():
    """real_data("fsdd") → the folder of a data set kept outside the project, or a skip."""

    def find(name):
        folder = PROJECT.parent / "shared" / "data" / name
        if not folder.is_dir():
            pytest.skip(f"needs the real data set in ../shared/data/{name}")
        return folder

    return find
