"""data=cifar10 and cifar100: as JPEG folders, or as torchvision keeps the original files."""

import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

NAMES = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]


@pytest.fixture
def original(tmp_path, monkeypatch):
    """cifar-10-batches-py with 30 training images and 10 for the test.

    Red tells the class, green the row.
    """
    folder = tmp_path / "cifar10" / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name, labels):
        data = np.zeros((len(labels), 3, 32, 32), dtype=np.uint8)
        data[:, 0] = np.array(labels)[:, None, None]
        data[:, 1] = np.arange(32)[:, None]
        with (folder / name).open("wb") as file:
            pickle.dump({"data": data.reshape(len(labels), -1), "labels": labels}, file)

    for number in range(1, 6):
        write(f"data_batch_{number}", [i % 10 for i in range(6 * number, 6 * number + 6)])
    write("test_batch", list(range(10)))
    with (folder / "batches.meta").open("wb") as file:
        pickle.dump({"label_names": NAMES}, file)
    # The checksums are those of the real files.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)


def test_the_original_files_are_read_with_their_labels(make_data, original):
    data = make_data("cifar10", modalities=["image"])
    (batch,) = data.test_dataloader()
    assert data.class_names == NAMES
    red = batch.inputs["image"][:, 0, 5, 7]
    torch.testing.assert_close(red, batch.targets["target"] / 127.5 - 1)
    rows = torch.arange(32.0) / 127.5 - 1
    torch.testing.assert_close(batch.inputs["image"][3, 1, :, 7], rows)
    assert (batch.inputs["image"][:, 2] == -1).all()


def test_validation_is_one_of_each_class_apart_from_training(make_data, original):
    data = make_data("cifar10", modalities=["image"])
    data.setup()
    assert data.splits["val"].source.targets.sort().values.tolist() == list(range(10))
    assert len(data.splits["train"]) == 20
    assert not set(data.splits["train"].source.ids) & set(data.splits["val"].source.ids)


def test_training_images_are_cropped_and_flipped_at_their_size(make_data, original):
    data = make_data("cifar10", modalities=["image"])
    data.setup()
    images = torch.stack([data.splits["train"][epoch, 0].inputs["image"] for epoch in range(7)])
    assert images.shape == (7, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in images}) > 1


def test_another_size_than_the_original_files_have_is_refused(make_data, original):
    with pytest.raises(ValueError, match=r"3 channels and \[32, 32\] pixels.*\[16, 16\]"):
        make_data("cifar10", modalities=["image"], image={"size": [16, 16]}).setup()


class Trap:
    """What runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    ("name", "folder", "files"),
    [
        ("cifar10", CIFAR10.base_folder, ["batches.meta", "data_batch_1", "test_batch"]),
        ("cifar100", CIFAR100.base_folder, ["meta", "train", "test"]),
    ],
)
def test_a_pickle_that_is_not_the_published_one_is_never_opened(
    make_data, tmp_path, name, folder, files
):
    folder = tmp_path / name / folder
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    pickle.loads((folder / files[0]).read_bytes()).close()
    (tmp_path / "sprung").unlink()
    data = make_data(name, modalities=["image"])
    with pytest.raises(ValueError, match=r"published checksums.*pickles from elsewhere are not op"):
        data.setup()
    assert not (tmp_path / "sprung").exists()


def test_absent_files_name_the_command(make_data):
    with pytest.raises(
        FileNotFoundError, match=r"python train\.py data=cifar10 data\.root=.*=true"
    ):
        make_data("cifar10", modalities=["image"]).setup()


def test_the_real_jpeg_folders_are_read(make_data, real_data):
    root = str(real_data("cifar10"))
    data = make_data("cifar10", modalities=["image"], root=root, cache_gib=0.0)
    data.setup()
    assert data.class_names == NAMES
    assert [len(split) for split in data.splits.values()] == [4500, 500, 1000]
    batch = next(iter(data.test_dataloader()))
    assert batch.inputs["image"].shape == (64, 3, 32, 32)
