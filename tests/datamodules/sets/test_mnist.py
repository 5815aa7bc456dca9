"""data=mnist and data=fashion_mnist: IDX files, wherever torchvision or a person puts them."""

import gzip
import hashlib

import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from tests.tiny import mnist


@pytest.mark.parametrize("folder", [".", "raw", "MNIST/raw"])
def test_pictures_carry_their_labels(make_data, tmp_path, folder):
    mnist(tmp_path / "mnist", folder)
    (batch,) = make_data("mnist", modalities=["image"]).test_dataloader()
    pixels = (batch.inputs["image"] + 1) * 127.5
    assert pixels.shape == (20, 1, 28, 28)
    torch.testing.assert_close(pixels[:, 0, 0, 0].round().long() // 10, batch.targets["target"])
    assert (pixels[:, 0, 5, 7] == 255).all()
    assert (pixels[:, 0, 7, 5] < 255).all()


def test_validation_is_taken_from_the_training_pictures(make_data, tiny_layout):
    tiny_layout("mnist")
    data = make_data("mnist", modalities=["image"])
    data.setup()
    assert [len(split) for split in data.splits.values()] == [20, 10, 20]
    assert data.splits["val"].source.targets.sort().values.tolist() == list(range(10))
    assert data.class_names[3] == "3 - three"


def test_fashion_has_names_and_a_folder_of_its_own(make_data, tiny_layout):
    tiny_layout("fashion_mnist")
    data = make_data("fashion_mnist", modalities=["image"])
    data.setup()
    assert data.class_names[9] == "Ankle boot"


def test_absent_files_name_the_command(make_data, tmp_path):
    command = rf"MNIST is not in {tmp_path}/mnist; .*data=mnist data\.root={tmp_path}/mnist data"
    with pytest.raises(FileNotFoundError, match=command):
        make_data("mnist", modalities=["image"]).setup()


def test_files_that_are_fetched_are_unpacked(make_data, tmp_path, monkeypatch):
    mnist(tmp_path / "published", ".")
    resources = []
    for path in sorted((tmp_path / "published").iterdir()):
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [f"{(tmp_path / 'published').as_uri()}/"])
    data = make_data("mnist", modalities=["image"], download=True)
    data.prepare_data()
    data.setup()
    assert len(data.splits["test"]) == 20
    assert len(list((tmp_path / "mnist/MNIST/raw").iterdir())) == 4
    monkeypatch.setattr(MNIST, "mirrors", [])
    data.prepare_data()  # they are there


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_without_a_network_one_sentence_says_what_cannot_be_fetched(make_data, monkeypatch, name):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", "http://127.0.0.1:9/other/"])
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar")
    with pytest.raises(OSError, match=r"Cannot fetch http://127\.0\.0\.1:9/\w.*") as refused:
        make_data(name, modalities=["image"], download=True).prepare_data()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kept", [0, 3, 500])
def test_a_file_that_is_cut_short_is_named(make_data, tiny_layout, kept):
    root, _ = tiny_layout("mnist")
    path = root / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is no IDX file, or is cut"):
        make_data("mnist", modalities=["image"]).setup()


def test_pictures_without_a_label_each_are_refused(make_data, tiny_layout):
    root, _ = tiny_layout("mnist")
    labels = root / "MNIST/raw"
    (labels / "t10k-labels-idx1-ubyte").replace(labels / "train-labels-idx1-ubyte")
    mnist_labels = (labels / "train-labels-idx1-ubyte").read_bytes()
    (labels / "t10k-labels-idx1-ubyte").write_bytes(mnist_labels)
    with pytest.raises(ValueError, match="30 pictures and 20 labels for train"):
        make_data("mnist", modalities=["image"]).setup()


def test_another_size_than_the_files_have_is_refused(make_data, tiny_layout):
    tiny_layout("mnist")
    with pytest.raises(ValueError, match=r"1 channels and \[28, 28\] pixels.*\[32, 32\]"):
        make_data("mnist", modalities=["image"], image={"size": [32, 32]}).setup()
