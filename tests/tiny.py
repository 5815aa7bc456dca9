"""Tiny copies of the layouts behind `data=`, for tests: write(root), and what else to override."""

from __future__ import annotations

import csv
import wave
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_wav(path: Path, seconds: float, frequency: float, rate: int = 8000) -> None:
    time = np.arange(round(seconds * rate)) / rate
    samples = (8000 * np.sin(2 * np.pi * frequency * time)).astype("<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def write_picture(path: Path, level: int, size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def audio_folder(root: Path) -> None:
    """Two classes of seven recordings, without splits."""
    for pitch, label in ((300, "low"), (900, "high")):
        for n in range(7):
            write_wav(root / label / f"{n}.wav", 0.13, pitch + n)


def write_idx(path: Path, values: np.ndarray) -> None:
    """An IDX file of bytes (LeCun): two zeros, type 8, rank, big-endian sizes, values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(head + values.astype(np.uint8).tobytes())


def mnist(root: Path, folder: str = "MNIST/raw") -> None:
    """Thirty pictures to train on and twenty for the test; the level tells label and place."""
    for name, count in (("train", 30), ("t10k", 20)):
        labels = np.arange(count) % 10
        pixels = np.zeros((count, 28, 28)) + (10 * labels + np.arange(count) // 10)[:, None, None]
        pixels[:, 5, 7] = 255
        write_idx(root / folder / f"{name}-images-idx3-ubyte", pixels)
        write_idx(root / folder / f"{name}-labels-idx1-ubyte", labels)


def fashion_mnist(root: Path) -> None:
    mnist(root, "FashionMNIST/raw")


def cifar100(root: Path) -> None:
    """A hundred folders, as the original files are pickles that only their publisher can write."""
    for n in range(100):
        for split, count in (("train", 2), ("test", 1)):
            for index in range(count):
                write_picture(root / split / f"class{n:02}" / f"{index}.png", n)


def imagenet(root: Path) -> None:
    for level, wnid in enumerate(("n01440764", "n02119789", "n03000684"), start=1):
        for n in range(5):
            write_picture(root / "train" / wnid / f"{wnid}_{n}.JPEG", 50 * level, (41, 53))
        for n in range(2):
            write_picture(root / "val" / wnid / f"{wnid}_val_{n}.JPEG", 50 * level, (41, 53))


def speech_commands(root: Path) -> None:
    """Two words of six speakers, and noise: two speakers are the test, one validation."""
    for pitch, word in ((300, "yes"), (900, "no")):
        for n in range(6):
            write_wav(root / word / f"speaker{n}_nohash_0.wav", 0.13, pitch + n)
    write_wav(root / "_background_noise_" / "hum.wav", 0.13, 50)
    lists = {"testing_list.txt": (0, 1), "validation_list.txt": (2,)}
    for name, speakers in lists.items():
        lines = [f"{word}/speaker{n}_nohash_0.wav\n" for word in ("no", "yes") for n in speakers]
        write_text(root / name, "".join(lines))


def esc50(root: Path) -> None:
    """Three classes with one recording in each of five folds."""
    rows = [("filename", "fold", "target", "category", "esc10", "src_file", "take")]
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rain", "siren")):
            name = f"{fold}-100-A-{target}.wav"
            write_wav(root / "audio" / name, 0.13, 200 * (target + 1))
            rows.append((name, fold, target, category, False, 100, "A"))
    write_text(root / "meta" / "esc50.csv", "".join(",".join(map(str, r)) + "\n" for r in rows))


def audioset(root: Path) -> None:
    """Lists of twelve and five clips, one of which is not there."""
    labels = {"/m/a": "Speech", "/m/b": "Music, loud", "/m/c": "Bark"}
    with (_folder(root) / "class_labels_indices.csv").open("w", newline="") as file:
        rows = [(n, *item) for n, item in enumerate(labels.items())]
        csv.writer(file).writerows([("index", "mid", "display_name"), *rows])
    for name, count in (("balanced_train", 12), ("eval", 5)):
        lines = ["# Segments csv, a comment", "# YTID, start_seconds, end_seconds, positive_labels"]
        for n in range(count):
            several = ",".join(list(labels)[: n % 3 + 1])
            lines.append(f'-{name[0]}{n:02}, {n}.000, {n + 10}.000, "{several}"')
            if (name, n) != ("eval", 3):
                write_wav(root / "audio" / f"Y-{name[0]}{n:02}.wav", 0.13, 200 + 100 * n)
        write_text(root / f"{name}_segments.csv", "\n".join(lines) + "\n")


def imdb(root: Path) -> None:
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            for n in range(5):
                word = {"pos": "good", "neg": "bad"}[label]
                write_text(root / "aclImdb" / split / label / f"{n}_7.txt", f"a {word} film, {n}")
    write_text(root / "aclImdb" / "train" / "unsup" / "0_0.txt", "no opinion")


def ag_news(root: Path) -> None:
    for name, count in (("train", 20), ("test", 8)):
        lines = [f'"{n % 4 + 1}","Title ""{n}""","Said, {name} {n}"\n' for n in range(count)]
        write_text(root / f"{name}.csv", "".join(lines))


def sst2(root: Path) -> None:
    """As GLUE publishes it: the test has no labels."""
    for name, count in (("train", 20), ("dev", 7)):
        lines = [f"{'good' if n % 2 else 'bad'} {name} {n} \t{n % 2}\n" for n in range(count)]
        write_text(root / "SST-2" / f"{name}.tsv", "sentence\tlabel\n" + "".join(lines))
    write_text(root / "SST-2" / "test.tsv", "index\tsentence\n0\tnobody knows\n")


def paired_folder(root: Path) -> None:
    """Two classes of seven examples, without splits; the third of each has no sound."""
    for level, label in ((50, "dark"), (200, "light")):
        for n in range(7):
            write_picture(root / label / f"{n}.jpg", level + n)
            if n != 2:
                write_wav(root / label / f"{n}.wav", 0.13, 2 * level + n)


def hf_dataset(root: Path) -> None:
    """Eighteen examples to train on and six for the test: picture, sound, text, label."""
    pytest.importorskip("datasets")
    from datasets import Audio, ClassLabel, Dataset, DatasetDict
    from datasets import Image as Picture

    def content(n):
        picture, sound = BytesIO(), root.parent / "sound.wav"
        Image.fromarray(np.full((11, 13, 3), 80 * (n % 3), np.uint8)).save(picture, "PNG")
        write_wav(sound, 0.13, 300 * (n % 3 + 1))
        return picture.getvalue(), sound.read_bytes()

    def part(count):
        pictures, sounds = zip(*(content(n) for n in range(count)), strict=True)
        dataset = Dataset.from_dict(
            {
                "picture": [{"bytes": held, "path": None} for held in pictures],
                "sound": [{"bytes": held, "path": None} for held in sounds],
                "caption": [f"this is number {n}" for n in range(count)],
                "label": [n % 3 for n in range(count)],
            }
        )
        dataset = dataset.cast_column("label", ClassLabel(names=["zebra", "ape", "cow"]))
        dataset = dataset.cast_column("picture", Picture(decode=False))
        return dataset.cast_column("sound", Audio(decode=False))

    DatasetDict({"train": part(18), "test": part(6)}).save_to_disk(str(root))


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


# data= → what writes its files, and overrides for what the copy has less of.
LAYOUTS = {
    "audio_folder": (audio_folder, []),
    "mnist": (mnist, []),
    "fashion_mnist": (fashion_mnist, []),
    "cifar100": (cifar100, []),
    "imagenet": (imagenet, ["data.num_classes=3", "data.image.size=[32,32]", "data.val_share=0.3"]),
    "speech_commands": (speech_commands, ["data.num_classes=2"]),
    "esc50": (esc50, ["data.num_classes=3"]),
    "audioset": (audioset, []),
    "imdb": (imdb, []),
    "ag_news": (ag_news, []),
    "sst2": (sst2, []),
    "paired_folder": (paired_folder, []),
    "hf_dataset": (hf_dataset, []),
}
