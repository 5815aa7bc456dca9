"""data=image_folder: pictures in folders named after their class."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.core.cached_columns import CachedColumn

LEVELS = {"cat": 51, "dog": 102, "eel": 204}


def fill(folder, *, count, size=(5, 7), classes=LEVELS):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            array = np.full((*size, 3), LEVELS.get(name, 0), dtype=np.uint8)
            Image.fromarray(array).save(folder / name / f"{index}.png")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "images" / "train", count=11)
    fill(tmp_path / "images" / "test", count=2)
    return tmp_path / "images"


@pytest.fixture
def make(make_data):
    def make(**overrides):
        size = {"image": {"size": [5, 7], "resize": False}}
        return make_data("image_folder", modalities=["image"], **(size | overrides))

    return make


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_pictures_carry_the_label_of_their_folder(make, root, cache_gib):
    data = make(cache_gib=cache_gib)
    data.setup()
    assert isinstance(data.splits["test"].source.columns["image"], CachedColumn) == (cache_gib > 0)
    assert data.class_names == ["cat", "dog", "eel"]
    (batch,) = data.test_dataloader()
    assert batch.inputs["image"].shape == (6, 3, 5, 7)
    levels = torch.tensor(list(LEVELS.values()))[batch.targets["target"]] / 127.5 - 1
    torch.testing.assert_close(batch.inputs["image"][:, 0, 0, 0], levels)
    assert batch.ids[0] == "test/cat/0.png"


def test_validation_is_made_from_train_for_every_class(make, root):
    data = make()
    data.setup()
    assert data.splits["val"].source.targets.tolist() == [0, 1, 2]
    assert len(data.splits["train"]) == 30
    assert not set(data.splits["train"].source.ids) & set(data.splits["val"].source.ids)


def test_a_val_folder_is_used_if_there(make, root):
    fill(root / "val", count=3)
    data = make()
    data.setup()
    assert [len(data.splits[name]) for name in ("train", "val")] == [33, 9]


def test_pictures_are_scaled_if_asked(make, root):
    (batch,) = make(image={"size": [3, 3], "resize": True}).test_dataloader()
    assert batch.inputs["image"].shape == (6, 3, 3, 3)


def test_a_picture_of_another_size_is_named(make, root):
    with pytest.raises(ValueError, match=r"0\.png is 5×7 .*\[3,3\]"):
        list(make(image={"size": [3, 3], "resize": False}).train_dataloader())


def test_a_picture_of_zero_bytes_is_named(make, root):
    (root / "train" / "dog" / "3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dog/3\.png: the file has zero bytes"):
        list(make().train_dataloader())


def test_a_class_that_train_does_not_have_is_named(make, root):
    fill(root / "test", count=1, classes=["fox"])
    with pytest.raises(ValueError, match=r"test/fox is a class that .*train does not have"):
        make().setup()


def test_absent_folders_are_named_with_the_layout(make):
    with pytest.raises(FileNotFoundError, match=r"images/train is not a folder: data\.root="):
        make().setup()


def test_an_empty_test_folder_is_refused(make, root):
    for path in (root / "test").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="The test split has no examples"):
        make().setup()


def test_a_wrong_number_of_classes_names_an_example_outside(make, root):
    with pytest.raises(ValueError, match=r"train/eel/\d+\.png has label 2, outside \[0, 2\)"):
        make(num_classes=2).setup()
