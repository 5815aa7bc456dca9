"""data=imagenet: the official val is the test, in folders of classes or with a list of them."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

WNIDS = ["n01440764", "n02119789", "n03000684"]
SMALL = {"num_classes": 3, "val_share": 0.4, "image": {"size": [8, 8]}}


@pytest.fixture
def root(tiny_layout):
    return tiny_layout("imagenet")[0]


def levels(data):
    """Class → grey level / 50 of its test pictures, which tells it."""
    (batch,) = data.test_dataloader()
    assert batch.inputs["image"].shape == (6, 3, 8, 8)
    level = ((batch.inputs["image"][:, 0, 0, 0] + 1) * 127.5 / 50).round().long()
    return dict(zip(batch.targets["target"].tolist(), level.tolist(), strict=True))


def flatten(root):
    """val/ without folders, as its archive unpacks; returns the class of each picture."""
    classes = {}
    for number, path in enumerate(sorted((root / "val").glob("*/*.JPEG")), start=1):
        classes[number] = path.parent.name
        path.rename(root / "val" / f"ILSVRC2012_val_{number:08}.JPEG")
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()
    return classes


def test_val_is_the_test_and_validation_is_taken_from_train(make_data, root):
    data = make_data("imagenet", modalities=["image"], **SMALL)
    assert levels(data) == {0: 1, 1: 2, 2: 3}
    assert data.class_names == WNIDS
    assert [len(split) for split in data.splits.values()] == [9, 6, 6]
    assert data.splits["train"][0, 0].inputs["image"].shape == (3, 8, 8)


def test_a_flat_val_takes_its_classes_from_kaggles_list(make_data, root):
    classes = flatten(root)
    lines = [f"ILSVRC2012_val_{n:08},{w} 1 2 3 4 {w} 5 6 7 8" for n, w in classes.items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    assert levels(make_data("imagenet", modalities=["image"], **SMALL)) == {0: 1, 1: 2, 2: 3}


def test_a_flat_val_takes_its_classes_from_the_development_kit(make_data, root):
    classes = flatten(root)
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    # The kit numbers the classes in an order of its own.
    numbers = {"n03000684": 1, "n01440764": 2, "n02119789": 3}
    synsets = np.array(
        [(number, wnid) for wnid, number in numbers.items()],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    savemat(folder / "meta.mat", {"synsets": synsets})
    lines = "".join(f"{numbers[wnid]}\n" for wnid in classes.values())
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    assert levels(make_data("imagenet", modalities=["image"], **SMALL)) == {0: 1, 1: 2, 2: 3}


def test_a_flat_val_without_a_list_says_what_to_add(make_data, root):
    flatten(root)
    with pytest.raises(FileNotFoundError, match=r"val_00000001\.JPEG is not known: .*LOC_val"):
        make_data("imagenet", modalities=["image"], **SMALL).setup()


def test_absent_folders_are_named(make_data):
    with pytest.raises(FileNotFoundError, match="imagenet/train is not a folder"):
        make_data("imagenet", modalities=["image"], **SMALL).setup()


def test_evaluation_sees_the_centre_of_a_picture(make_data, root):
    data = make_data("imagenet", modalities=["image"], **SMALL)
    data.setup()
    assert torch.equal(
        data.splits["val"][0, 1].inputs["image"], data.splits["val"][5, 1].inputs["image"]
    )
