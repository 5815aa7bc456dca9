"""What all data modules share: options, what is inferred, validation, loaders and the summary."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch

from datamodules.core.bad_examples import BadExamples
from datamodules.core.collate import Collator, Example
from datamodules.core.dataset import SPLITS, Source, Split
from datamodules.core.facts import DataFacts
from datamodules.core.loaders import make_loader
from datamodules.core.splitting import draw_missing
from datamodules.core.summary import describe_imbalance, describe_targets
from datamodules.core.validation import check_labels, check_missing
from datamodules.loading.loader import ResumableLoader
from datamodules.loading.seeding import generator
from datamodules.readers import READERS, Field, Reader, kind_of
from datamodules.transforms.apply import Transforms
from perceiver.types import Batch, TargetKind

__all__ = ["Example", "MultimodalDataModule"]

_WORKERS = 64  # processes that any machine may start


class MultimodalDataModule(pl.LightningDataModule):
    """Base of all data sets: a subclass says which modalities it has and implements `build`.

    The Trainer must run with `use_distributed_sampler=False`: the samplers made here share the
    splits out over processes themselves, evaluation without counting an example twice.

    Args:
        modalities: what the model takes, some of `available_modalities`; None = all that the
            data turn out to have (for a subclass whose `build` finds out).
        batch_size: examples per batch, in each process; None = 64, fewer of a small training split.
        num_classes: expected number of classes; None = as many as the data has.
        num_workers: loader processes, in each process.
        pin_memory: copy batches to page-locked memory, from which a GPU fetches them while it
            computes; None = where the trainer has one.
        prefetch: batches that each worker reads ahead.
        sampler: which examples an epoch of training has: None = each once; "balanced" = as many of
            each class, so that those of rare classes come several times.
        bucket_batches: batches of similar lengths are made within windows of this many; 0 = any
            lengths share a batch. A large window pads little and shuffles little.
        seed: of the order and of what training draws anew every epoch.
        split_seed: of what is held out, and of everything random in held-out examples. Apart from
            `seed`, so that runs over several seeds are tested on one and the same test set.
        on_error: what to do with a modality of an example that cannot be decoded: "raise", or
            "skip": the example goes on without it (see `Split`) and is listed (see
            `bad_examples`).
        error_budget: share of the examples that may be broken until a run that skips stops.
        missing: split → modality → share of examples to take the modality from, at random but the
            same ones every time; each example keeps at least one modality.
        augment: modality, or kind of modalities → callables on its tensor, applied in training
            only. They may draw from torch's global generator, which is seeded for every example.
        transform: the same, always, after them: what evaluation and prediction need as well.
        mix: changes whole training batches, `MixUp` for one; see `Collator`.
        **readers: kind of modality → options of its reader, as `readers.READERS` lists them
            (`image=`, …). Those that it can `fit` may be None: they are inferred from the training
            split.

    Attributes:
        modalities: in the order of `available_modalities`.
        readers: kind of modality → its reader, complete after `facts`.
        bad_examples: the examples that were skipped; None where errors are raised.
        notes: what people should know of the data, a line each, after `facts`.
        class_names: after `facts`.
        num_classes: after `facts`.
        splits: split → map-style dataset, after `setup`.

    Raises:
        ValueError: an option names a modality or a split that is not there.
    """

    available_modalities: ClassVar[tuple[str, ...]]  # kinds of them
    shuffle_window = 0  # examples; of data sets whose examples lie together in blocks
    required: Sequence[str] = SPLITS  # that must have examples
    targets: TargetKind = TargetKind.CLASS  # what an example's target is

    def __init__(
        self,
        *,
        modalities: Sequence[str] | None,
        batch_size: int | None,
        num_classes: int | None = None,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        prefetch: int = 2,
        sampler: str | None = None,
        bucket_batches: int = 0,
        seed: int = 0,
        split_seed: int = 0,
        on_error: str = "raise",
        error_budget: float = 0.05,
        missing: Mapping[str, Mapping[str, float]] | None = None,
        augment: Mapping[str, Transforms | None] | None = None,
        transform: Mapping[str, Transforms | None] | None = None,
        mix: Callable[[Batch], Batch] | None = None,
        **readers: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        if unknown := set(readers) - set(READERS):
            raise TypeError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        self.modalities = [] if modalities is None else self._choose(modalities)
        least = {"num_workers": (num_workers, 0), "bucket_batches": (bucket_batches, 0)}
        least |= {"batch_size": (batch_size, 1), "prefetch": (prefetch, 1)}
        for option, (value, bound) in least.items():
            if value is not None and value < bound:
                raise ValueError(f"data.{option}={value}, expected at least {bound}.")
        if num_workers > (most := max(_WORKERS, 4 * (os.cpu_count() or 1))):
            raise ValueError(
                f"data.num_workers={num_workers} is more than {most}: this machine has "
                f"{os.cpu_count()} processors, and each worker is a process."
            )
        if on_error not in ("raise", "skip") or not 0 <= error_budget <= 1:
            raise ValueError(
                f"data.on_error={on_error} with data.error_budget={error_budget}: expected raise "
                "or skip, and a share in [0, 1]."
            )
        self.batch_size = batch_size
        self.num_classes = num_classes
        self.class_names: list[str] = []
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.prefetch = prefetch
        if sampler not in (None, "balanced"):
            raise ValueError(f"data.sampler={sampler}, expected balanced or null.")
        self.sampler = sampler
        self.bucket_batches = bucket_batches
        self.seed = seed
        self.split_seed = split_seed
        self.bad_examples = BadExamples(budget=error_budget) if on_error == "skip" else None
        self.given = {kind: dict(options) for kind, options in readers.items() if options}
        self.readers: dict[str, Reader] = {
            kind: READERS[kind](**options)
            for kind, options in self.given.items()
            if not self._open(kind)
        }
        self.missing = check_missing(missing or {}, self.available_modalities)
        self.notes: list[str] = []
        self.splits: dict[str, Split] = {}
        self._sources: dict[str, Source] = {}
        self._lacking: dict[str, np.ndarray] = {}
        self.set_transforms(augment=augment, transform=transform, mix=mix)

    def _steps(
        self, option: str, given: Mapping[str, Transforms | None] | None
    ) -> dict[str, Transforms]:
        """The transforms of modalities that have any."""
        steps = {name: list(found) for name, found in (given or {}).items() if found}
        if unknown := {name for name in steps if kind_of(name) not in self.available_modalities}:
            raise ValueError(
                f"data.{option} names {sorted(unknown)}, this data set offers "
                f"{list(self.available_modalities)}."
            )
        return steps

    def set_transforms(
        self,
        *,
        augment: Mapping[str, Transforms | None] | None = None,
        transform: Mapping[str, Transforms | None] | None = None,
        mix: Callable[[Batch], Batch] | None = None,
    ) -> None:
        """Replace the transforms before the splits are made: some are built from `facts`.

        Args:
            augment: as the class has it.
            transform: likewise.
            mix: likewise.

        Raises:
            ValueError: they name a modality that is not there.
            RuntimeError: the splits are made already.
        """
        if self.splits:
            raise RuntimeError("the splits are made: set transforms before setup")
        self.augment, self.mix = self._steps("augment", augment), mix
        self.transform = self._steps("transform", transform)

    def steps(self, steps: Mapping[str, Transforms]) -> dict[str, Transforms]:
        """Those of `augment` or `transform` for each modality: its own, or those of its kind."""
        return {n: steps.get(n, steps.get(kind_of(n), ())) for n in self.modalities}

    def _open(self, kind: str) -> list[str]:
        """The options of a kind that are left to be inferred."""
        return READERS[kind].open_options(self.given.get(kind, {}))

    @abstractmethod
    def build(self) -> tuple[list[str], dict[str, Source]]:
        """The class names, and the source of each of train, val and test."""

    def fields(self) -> dict[str, Field]:
        """What the tensors of each chosen modality look like, for the collator."""
        return {name: self.readers[kind_of(name)].field() for name in self.modalities}

    def inferred(self) -> dict[str, Any]:
        """The options that were left open, with what was found: plain data for the config."""
        self._open_once()
        fitted = {
            kind: plain(asdict(self.readers[kind])) for kind in self.readers if self._open(kind)
        }
        names = ("modalities", "num_classes", "batch_size")
        return {name: getattr(self, name) for name in names} | fitted

    def facts(self) -> DataFacts:
        """What the data turn out to be; the first call opens and checks them.

        Raises:
            ValueError: a split is empty, labels do not fit the number of classes, or an example
                has none of the chosen modalities; the message names the example.
        """
        options = self.inferred()
        mean = std = None
        if self.targets == "values" and "train" in self._sources:
            values = self._sources["train"].targets.double()
            spread, centre = torch.std_mean(values, dim=0, correction=0)
            mean, std = centre.tolist(), torch.where(spread > 0, spread, 1.0).tolist()
        return DataFacts(
            targets=self.targets,
            class_names=list(self.class_names),
            num_examples={split: len(source) for split, source in self._sources.items()},
            options=options,
            class_counts=self._class_counts(),
            target_mean=mean,
            target_std=std,
        )

    def _class_counts(self) -> list[int] | None:
        """How many training examples each class has; None where targets are no classes."""
        if self.targets != TargetKind.CLASS or "train" not in self._sources:
            return None
        targets = self._sources["train"].targets
        return targets.bincount(minlength=len(self.class_names)).tolist()

    def _open_once(self) -> None:
        """Builds and checks the sources of all splits."""
        if self._sources:
            return
        names, sources = self.build()
        for split in self.required:
            if not len(sources[split]):
                raise ValueError(f"The {split} split has no examples: check data's folder or file.")
        check_labels(names, sources, num_classes=self.num_classes)
        self.class_names, self.num_classes = names, len(names)
        if self.batch_size is None:  # at least ten steps an epoch where that leaves four a step
            self.batch_size = min(64, max(4, 2 ** int(np.log2(max(len(sources["train"]) / 10, 1)))))
        if self.bad_examples:
            self.bad_examples.total = sum(map(len, sources.values()))
        readers = {name: self.readers[kind_of(name)] for name in self.modalities}
        sources = self.prepare({n: source for n, source in sources.items() if len(source)}, readers)
        self._lacking = {n: self._draw_lacking(n, sources[n]) for n in SPLITS if n in sources}
        self._sources = {name: sources[name] for name in self._lacking}

    def setup(self, stage: str | None = None) -> None:
        """Makes the splits, once.

        Raises:
            ValueError: as `facts`.
        """
        if self.splits:
            return
        self._open_once()
        readers = {name: self.readers[kind_of(name)] for name in self.modalities}
        for split, source in self._sources.items():
            training, number = split == "train", SPLITS.index(split)
            self.splits[split] = Split(
                source,
                modalities=self.modalities,
                lacking=self._lacking[split],
                training=training,
                seed=(self.seed if training else self.split_seed) * len(SPLITS) + number,
                readers=readers,
                augment=self.steps(self.augment),
                transform=self.steps(self.transform),
                bad_examples=self.bad_examples,
            )

    def prepare(
        self, sources: dict[str, Source], readers: Mapping[str, Reader]
    ) -> dict[str, Source]:
        """The sources to read from, once it is known how their cells decode; a hook for caches."""
        return sources

    def report_to(self, folder: Path, *, is_first: bool = True) -> None:
        """List broken examples in bad_examples.csv of a run's folder.

        Args:
            folder: of the run.
            is_first: this process begins the list; others add to it.
        """
        if self.bad_examples:
            self.bad_examples.move(folder / "bad_examples.csv", anew=is_first)

    def train_dataloader(self) -> ResumableLoader:
        return self._loader("train")

    def val_dataloader(self) -> ResumableLoader:
        return self._loader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self._loader("test")

    def summary(self) -> list[str]:
        """What the splits hold, one line each, for people."""
        self._open_once()
        lines = []
        for split, source in self._sources.items():
            told = describe_targets(source.targets, self.class_names)
            lines.append(f"{split:5} {len(source):,} examples · {told}")
            lacking = self._lacking[split].sum(axis=0)
            if split == "train" and self.targets == TargetKind.CLASS:
                lines += describe_imbalance(self._class_counts() or [], self.class_names)
            if lacking.any():
                parts = zip(self.modalities, lacking, strict=True)
                lines.append(f"{'':5} lacking " + ", ".join(f"{m} {n:,}" for m, n in parts if n))
        return [f"modalities {', '.join(self.modalities)}", *lines, *self.notes]

    def _choose(self, modalities: Sequence[str]) -> list[str]:
        wanted = list(modalities)
        unknown = [name for name in wanted if kind_of(name) not in self.available_modalities]
        if unknown or not wanted:
            problem = f"not {unknown}" if unknown else "and the model takes none of them"
            raise ValueError(
                f"{type(self).__name__} offers {list(self.available_modalities)}, {problem}: "
                f"choose with modality@model.adapters=[{','.join(self.available_modalities)}]."
            )
        return sorted(wanted, key=lambda name: self.available_modalities.index(kind_of(name)))

    def _draw_lacking(self, split: str, source: Source) -> np.ndarray:
        absent = np.zeros((len(source), len(self.modalities)), dtype=bool)
        for number, name in enumerate(self.modalities):
            if name in source.columns:
                absent[:, number] = source.columns[name].absent()
        if absent.all(axis=1).any() and not self.bad_examples:
            name = source.ids[int(absent.all(axis=1).argmax())]
            raise ValueError(
                f"Example {name} has none of the modalities {self.modalities}: "
                "remove it or give it at least one."
            )
        shares = self.missing.get(split, {})
        chances = [shares.get(n, shares.get(kind_of(n), 0.0)) for n in self.modalities]
        rng = generator(self.split_seed, SPLITS.index(split))
        return draw_missing(chances, absent=absent, rng=rng)

    def _is_balanced(self) -> bool:
        if self.sampler and (self.targets != TargetKind.CLASS or self.shuffle_window):
            problem = (
                f"data.shuffle_window={self.shuffle_window} keeps examples in blocks: set it to 0"
                if self.shuffle_window
                else f"the target is {self.targets}, not a class"
            )
            raise ValueError(f"data.sampler={self.sampler}, but {problem}.")
        return self.sampler is not None

    def _loader(self, name: str) -> ResumableLoader:
        self.setup()
        if name not in self.splits:
            raise ValueError(f"The data have no {name} split, only {', '.join(self.splits)}.")
        split = self.splits[name]
        collator = Collator(
            self.fields(),
            allow_empty=self.bad_examples is not None,
            mix=self.mix if split.training else None,
            num_classes=self.num_classes,
        )
        return make_loader(
            split,
            collator=collator,
            trainer=self.trainer,
            batch_size=self.batch_size,
            seed=self.seed,
            is_balanced=self._is_balanced(),
            bucket_batches=self.bucket_batches,
            shuffle_window=self.shuffle_window,
            num_workers=self.num_workers,
            prefetch=self.prefetch,
            pin_memory=self.pin_memory,
        )


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down: what a config and a checkpoint hold."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
