"""How fast examples come, beside the bare decoder and a plain Dataset: python -m benchmarks.data

    python -m benchmarks.data                                files made for it in a temporary folder
    python -m benchmarks.data --root ../shared/data          cifar10, fsdd and sst2 in that folder
    python -m benchmarks.data --only clips --workers 0 4     one kind of data, other workers

Everything takes turns in one run, on one thread a process; medians are compared. "Plain" is what
one writes with torchvision or soundfile and a DataLoader: read, decode, the same transforms, pad.
"First" is an epoch from nothing: making the data set, starting the workers, decoding all examples.
"Later" is any other epoch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.machine import describe
from benchmarks.run import command, write
from benchmarks.tables import loading
from datamodules.core.collate import Collator
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.decoding import decode
from datamodules.layouts.image_folder import ImageFolderDataModule
from datamodules.layouts.shards.data import ShardsDataModule
from datamodules.layouts.shards.writer import pack
from datamodules.layouts.text_tsv import TextTSVDataModule
from datamodules.sets.fsdd import FSDDDataModule
from datamodules.transforms.audio import RandomGain

BATCH = 64
RATE = 8000


@dataclass(frozen=True)
class Case:
    """One kind of data.

    Args:
        name: for people.
        plain: makes the plain dataset and the function that joins its examples.
        ours: makes the data module from `cache_gib=`, `num_workers=`, ….
        bare: decodes a file and does nothing else; None = there is nothing to decode.
    """

    name: str
    plain: Callable[[], tuple[Dataset, Callable[..., Any] | None]]
    ours: Callable[..., MultimodalDataModule]
    bare: Callable[[Path], Any] | None


class Files(Dataset):
    """Files or texts with a label each, read as one would."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Tensor]) -> None:
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item, label = self.items[index]
        return self.read(item), label


def pad(examples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    rows = [row for row, _ in examples]
    values = pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(values.shape[1]) < lengths[:, None]
    return values, mask, torch.tensor([label for _, label in examples])


def images(root: Path, *, size: int, crop: bool) -> Case:
    """JPEG files in folders; small ones are cropped at random, large ones scaled down."""
    augment: list[Any] = [v2.RandomHorizontalFlip()]
    augment += [v2.RandomCrop(size, padding=4)] if crop else []
    scale = [] if crop else [v2.Resize((size, size))]
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]

    def plain() -> tuple[Dataset, None]:
        steps = v2.Compose([*scale, v2.PILToTensor(), *augment, *last])
        return ImageFolder(str(root / "train"), transform=steps), None

    def bare(path: Path) -> np.ndarray:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))

    ours = partial(
        ImageFolderDataModule,
        root=str(root),
        modalities=["image"],
        batch_size=BATCH,
        image={"channels": 3, "size": (size, size), "resize": not crop},
        augment={"image": augment},
    )
    return Case("small images" if crop else "photographs", plain, ours, bare)


def read_clip(path: Path, gain: Callable[[Tensor], Tensor]) -> Tensor:
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return gain(torch.from_numpy(samples).mean(dim=1)[:RATE])


def clips(root: Path) -> Case:
    """WAV files of less than a second or so, at a random gain."""
    gain = RandomGain()

    def plain() -> tuple[Dataset, Callable[..., Any]]:
        paths = sorted(root.rglob("*.wav"))
        train = [(path, int(path.name[0])) for path in paths if int(path.stem.split("_")[2]) > 4]
        return Files(train, partial(read_clip, gain=gain)), pad

    ours = partial(
        FSDDDataModule,
        root=str(root),
        modalities=["audio"],
        batch_size=BATCH,
        val_share=0.01,
        audio={"sample_rate": RATE, "max_seconds": 1.0},
        augment={"audio": [gain]},
    )
    return Case("clips", plain, ours, partial(soundfile.read, dtype="float32"))


def encode(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode("utf-8")[:256]), dtype=torch.uint8).long() + 6


def texts(root: Path) -> Case:
    """A line a text, as bytes."""

    def plain() -> tuple[Dataset, Callable[..., Any]]:
        lines = (root / "train.tsv").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        return Files([(text, int(label)) for text, label in rows], encode), pad

    ours = partial(
        TextTSVDataModule,
        root=str(root),
        modalities=["text"],
        batch_size=BATCH,
        text={"max_length": 256, "errors": "raise"},
    )
    return Case("texts", plain, ours, None)


def sharded(case: Case, root: Path) -> Case:
    """The same examples as shards."""
    out = root / "shards"
    if not out.exists():
        pack(case.ours(cache_gib=0), str(out))
    made = case.ours(cache_gib=0)

    def ours(**options: Any) -> MultimodalDataModule:
        common = {"root": str(out), "modalities": None, "batch_size": BATCH}
        return ShardsDataModule(**common, augment=made.augment, **options)

    return Case(f"{case.name}, shards", case.plain, ours, case.bare)


def make_files(root: Path) -> None:
    """A thousand small images, clips and texts, and two hundred photographs."""
    rng = np.random.default_rng(0)
    for name, size, count in (("cifar10", (32, 32), 1000), ("photographs", (375, 500), 200)):
        for split, share in (("train", count), ("test", 20)):
            for number in range(share):
                folder = root / name / split / str(number % 10)
                folder.mkdir(parents=True, exist_ok=True)
                coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
                image.save(folder / f"{number}.jpg", quality=90)
    (root / "fsdd").mkdir()
    for number in range(1000):
        samples = rng.normal(0, 0.1, rng.integers(RATE // 5, RATE))
        name = f"{number % 10}_voice{number // 10 % 2}_{number // 20}.wav"
        soundfile.write(root / "fsdd" / name, samples, RATE)
    (root / "sst2").mkdir()
    for split, count in (("train", 1000), ("dev", 20), ("test", 20)):
        rows = ["word " * rng.integers(2, 40) + f"\t{number % 2}" for number in range(count)]
        (root / "sst2" / f"{split}.tsv").write_text("\n".join(rows) + "\n")


def rate(work: Callable[[], int]) -> float:
    """Examples a second of one turn of `work`, which returns how many it did."""
    start = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - start)


def stages(case: Case, rounds: int) -> dict[str, float]:
    """Examples a second of each stage by itself, in this process, and of all together."""
    data = case.ours(cache_gib=0)
    data.setup()
    split = data.splits["train"]
    (name,) = split.modalities
    reader, count = split.readers[name], min(len(split), 512)
    cells = split.source.columns[name].cells(range(count))

    def decoded(some: Sequence[Any]) -> list[Tensor | None]:
        return decode(some, name=name, reader=reader, ids=[""] * len(some), bad_examples=None)

    tensors = decoded(cells)
    steps = split.augment.get(name, [])
    collator, keys = Collator(data.fields()), [(0, index) for index in range(count)]
    examples = [split.__getitems__(keys[i : i + BATCH]) for i in range(0, count, BATCH)]

    def transform(value: Tensor) -> None:
        for step in steps:
            value = step(value)

    def each(function: Callable[[Any], Any], values: Iterable[Any]) -> int:
        for value in values:
            function(value)
        return count

    def batches(function: Callable[[Any], Any], values: Sequence[Any]) -> int:
        return each(function, [values[i : i + BATCH] for i in range(0, count, BATCH)])

    work: dict[str, Callable[[], int]] = {}
    if isinstance(cells[0], Path):
        work["read"] = lambda: each(Path.read_bytes, cells)
        if case.bare:
            work["bare decoder"] = lambda: each(case.bare, cells)
    work["decode"] = lambda: batches(decoded, cells)
    if steps:
        work["transform"] = lambda: each(transform, tensors)
    work["collate"] = lambda: each(collator, examples)
    work["all"] = lambda: batches(lambda k: collator(split.__getitems__(k)), keys)
    found: dict[str, list[float]] = {stage: [] for stage in work}
    for _ in range(rounds):
        for stage, one in work.items():
            found[stage].append(rate(one))
    return {stage: median(rates) for stage, rates in found.items()}


def loaders(case: Case, workers: int, rounds: int) -> dict[str, float]:
    """Examples a second of loaders with some workers, first and later epochs."""

    def plain() -> DataLoader:
        dataset, collate = case.plain()
        return DataLoader(
            dataset,
            BATCH,
            shuffle=True,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
        )

    def ours(cache_gib: float) -> DataLoader:
        return case.ours(cache_gib=cache_gib, num_workers=workers).train_dataloader()

    makers = {"plain": plain, "decoding": partial(ours, 0.0), "kept": partial(ours, 1.0)}
    alive: dict[str, DataLoader] = {}

    def epoch(loader: DataLoader) -> int:
        return sum(len(batch) if hasattr(batch, "ids") else len(batch[-1]) for batch in loader)

    def first(name: str) -> int:
        alive[name] = makers[name]()
        return epoch(alive[name])

    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        for name in makers:
            if turn < (rounds + 1) // 2:
                alive.pop(name, None)  # the workers and the memory of the turn before
                found.setdefault(f"{name}, first", []).append(rate(lambda n=name: first(n)))
            found.setdefault(name, []).append(rate(lambda n=name: epoch(alive[n])))
    return {name: median(rates) for name, rates in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of cifar10/, fsdd/ and sst2/")
    parser.add_argument("--only", nargs="+", default=[], help="names of cases, or parts of them")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="turns of everything")
    parser.add_argument("--out", type=Path, help="JSON file for the medians")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in _cases(options.root, Path(folder)):
            if not options.only or any(part in case.name for part in options.only):
                cases[case.name] = {
                    "stages": stages(case, options.rounds),
                    "workers": {str(n): loaders(case, n, options.rounds) for n in options.workers},
                }
    print("Examples a second", *loading(cases), sep="\n\n")
    if options.out:
        machine = describe("cpu", 1, ("torch", "torchvision", "soundfile"))
        told = {"kind": "data", "command": command(), "machine": machine, "cases": cases}
        write(options.out, told)


def _cases(root: Path | None, made: Path) -> list[Case]:
    """All kinds of data; what `root` does not have is made."""
    make_files(made)
    root = root or made
    small = images(root / "cifar10", size=32, crop=True)
    return [
        small,
        sharded(small, made),
        clips(root / "fsdd"),
        texts(root / "sst2"),
        images(made / "photographs", size=64, crop=False),
    ]


if __name__ == "__main__":
    main()
