"""Links that lead out of data.root: refused, listed or followed, alike in every layout of files."""

import pytest
from omegaconf import OmegaConf

from tests.tiny import LAYOUTS, cifar100, write_picture, write_wav


def fsdd(root):
    for digit in range(10):
        for index in range(3, 8):
            write_wav(root / "recordings" / f"{digit}_ann_{index}.wav", 0.11, 200 + 100 * digit)


def image_folder(root):
    for part in ("train", "test"):
        for level, label in ((50, "dark"), (200, "light")):
            for n in range(3):
                write_picture(root / part / label / f"{n}.png", level + n)


def manifest(root):
    rows = ["photo,label"]
    for n in range(30):
        write_picture(root / "photos" / f"{n}.png", 5 * n)
        rows.append(f"photos/{n}.png,{'ab'[n % 2]}")
    (root / "my.csv").write_text("\n".join(rows) + "\n")


# data= → what writes its files, overrides, what the model takes, a file, and a folder of others.
IMAGE, AUDIO = ["image"], ["audio"]
LAYOUTS_OF_FILES = {
    "audio_folder": (*LAYOUTS["audio_folder"], AUDIO, "low/3.wav", "high"),
    "audioset": (*LAYOUTS["audioset"], AUDIO, "audio/Y-b05.wav", "audio"),
    "av_digits": (fsdd, [], IMAGE + AUDIO, "recordings/3_ann_6.wav", "recordings"),
    "cifar10": (cifar100, ["data.num_classes=100"], IMAGE, "train/class07/1.png", "test"),
    "cifar100": (cifar100, [], IMAGE, "train/class07/1.png", "test/class07"),
    "esc50": (*LAYOUTS["esc50"], AUDIO, "audio/2-100-A-1.wav", "audio"),
    "fsdd": (fsdd, [], AUDIO, "recordings/3_ann_6.wav", "recordings"),
    "image_folder": (image_folder, [], IMAGE, "train/dark/1.png", "test"),
    "imagenet": (*LAYOUTS["imagenet"], IMAGE, "train/n02119789/n02119789_1.JPEG", "val"),
    "imdb": (*LAYOUTS["imdb"], ["text"], "aclImdb/train/neg/3_7.txt", "aclImdb"),
    "manifest": (manifest, [], IMAGE, "photos/3.png", "photos"),
    "paired_folder": (*LAYOUTS["paired_folder"], IMAGE + AUDIO, "dark/3.wav", "light"),
    "speech_commands": (*LAYOUTS["speech_commands"], AUDIO, "no/speaker4_nohash_0.wav", "yes"),
}


@pytest.fixture(params=LAYOUTS_OF_FILES)
def linked(request, make_data, tmp_path):
    """linked("a file", "a folder", **options) → the data module where these have become links."""
    write, overrides, modalities, file, folder = LAYOUTS_OF_FILES[request.param]
    root = tmp_path / "root"
    write(root)
    given = dict(OmegaConf.from_dotlist([item.removeprefix("data.") for item in overrides]))
    if write is manifest:
        given |= {"path": str(root / "my.csv"), "kinds": modalities}
    else:
        given |= {"root": str(root)}

    def make(*places, **options):
        for place in places:
            path = root / (file if place == "a file" else folder)
            moved = tmp_path / place / path.name
            moved.parent.mkdir()
            path.rename(moved)
            path.symlink_to(moved)
        return make_data(request.param, modalities=modalities, **given, **options)

    return make


@pytest.mark.parametrize("place", ["a file", "a folder"])
def test_a_link_out_of_the_root_is_refused_by_name(linked, place):
    with pytest.raises(ValueError, match=r"lies outside data\.root=.*data\.outside=true"):
        linked(place).setup()


def test_what_lies_behind_links_out_of_the_root_is_listed_if_asked(linked):
    data = linked("a file", on_error="skip", error_budget=1.0)
    data.setup()
    (row,) = data.bad_examples.rows()
    assert "lies outside data.root=" in row["reason"]
    for split in data.splits.values():
        list(split.__getitems__(range(len(split))))


def test_links_out_of_the_root_are_followed_if_that_is_allowed(linked):
    data = linked("a file", "a folder", outside=True)
    data.setup()
    for split in data.splits.values():
        list(split.__getitems__(range(len(split))))
