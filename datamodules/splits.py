"""One split of a data set: `Source` gives an example, `Split` decodes, seeds and augments it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.broken import BrokenExamples
from datamodules.collate import Example
from datamodules.randomness import derive_seed, generator, torch_state_kept
from datamodules.readers import Cell, Kind
from datamodules.readers.audio import AudioOptions
from datamodules.readers.video import VideoOptions, is_film, read_clip
from datamodules.transforms.apply import Transforms, apply, finish

SPLITS = ("train", "val", "test")


_MAX_REDRAWS = 10  # of a training example that turned out to be broken altogether


class Source:
    """The examples of one split: labels and names known up front, inputs read on demand.

    A source of files implements `cells`, and the modalities' options decode them; one that draws
    its examples implements `read` instead.

    Args:
        targets: (n,) class indices, or (n, k) 0/1 labels or real values.
        ids: n names that lead a reader to the example: a file, a file and line.
    """

    def __init__(self, *, targets: Sequence[int] | Tensor, ids: Sequence[str]) -> None:
        self.targets = torch.as_tensor(targets)
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def cells(self, index: int) -> dict[str, Cell]:
        """What one example has of each modality as it lies on the disk; None = absent."""
        raise TypeError(f"{type(self).__name__} draws its examples, it has no cells.")

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Cell]:
        """The inputs of one example, decoded or not; all randomness comes from `rng`.

        Images may be uint8, as library transforms like them best: the collator scales them to
        [-1, 1] after all transforms.
        """
        return self.cells(index)

    def fetch(self, indices: Sequence[int]) -> None:
        """Told before the examples of a batch are read, for what is better asked for at once."""

    def blocks(self) -> np.ndarray | None:
        """(n,) numbers; examples that share one lie together and are best read together."""
        return None

    def absent(self, modality: str) -> np.ndarray:
        """(n,) bool, True on examples known in advance to lack the modality."""
        return np.zeros(len(self), dtype=bool)

    def lengths(self, modality: str, kind: Kind | None) -> np.ndarray | None:
        """(n,) how long each example is in a modality, without decoding it; None = not known.

        In any unit, and about right is good enough: it decides only who shares a batch.

        Args:
            modality: one of those that examples have.
            kind: decodes it.
        """
        return None


class Split(Dataset[Example]):
    """A map-style dataset over (epoch, index) keys, as `EpochSampler` yields them.

    In training an example is drawn anew every epoch, from (seed, epoch, index); in evaluation it
    depends on (seed, index) alone.

    Where a modality cannot be decoded and `broken` is given, the example goes on without it. If
    it has nothing else, training takes another example in its place, and evaluation keeps it with
    nothing in it, for the model to answer as best it can: so batches have the same sizes in every
    process, and no example is counted twice.

    Args:
        source: the examples.
        modalities: what to keep of what the source reads.
        lacking: (n, len(modalities)) bool, True = leave the modality out of the example.
        training: whether epochs differ and `augment` applies.
        seed: of this split; two splits of one data set need two.
        kinds: modality → what decodes its cells; one whose source gives tensors needs none.
        augment: modality → callables on its tensor, applied in order, in training.
        transform: the same, always, after them.
        broken: where to report what cannot be decoded; None = raise.
    """

    def __init__(
        self,
        source: Source,
        *,
        modalities: Sequence[str],
        lacking: np.ndarray,
        training: bool,
        seed: int,
        kinds: Mapping[str, Kind] | None = None,
        augment: Mapping[str, Transforms] | None = None,
        transform: Mapping[str, Transforms] | None = None,
        broken: BrokenExamples | None = None,
    ) -> None:
        self.source = source
        self.modalities = list(modalities)
        self.lacking = lacking
        self.training = training
        self.seed = seed
        self.kinds = dict(kinds or {})
        self.augment = {name: steps for name, steps in (augment or {}).items() if steps}
        self.transform = {name: steps for name, steps in (transform or {}).items() if steps}
        self.broken = broken
        # NumPy gives one number out of many in a tenth of torch's time.
        self._classes = source.targets.numpy() if source.targets.ndim == 1 else None
        # A generator takes longer than a cell: it is made only for what draws from it.
        self._draws = type(source).read is not Source.read or (
            training and any(kind.draws for kind in self.kinds.values())
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int] | int) -> Example:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> list[Example]:
        """A batch at once, as DataLoader asks for it."""
        # Lightning's overfit_batches puts in a sampler of its own, of plain indices.
        pairs = [key if isinstance(key, tuple) else (0, key) for key in keys]
        self.source.fetch([index for _, index in pairs])
        if not self.training:
            return [self._example(0, index) for _, index in pairs]
        with torch_state_kept() if self.augment else nullcontext():
            examples = [self._example(epoch, index) for epoch, index in pairs]
        examples[0].seed = derive_seed(self.seed, *pairs[0], 2)  # of what mixes the batch
        return examples

    def _example(self, epoch: int, index: int) -> Example:
        drawn, inputs = self._readable(epoch, index)
        id, here = self.source.ids[drawn], [n for n, v in inputs.items() if v is not None]
        if self.training and self.augment:
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index, 1))
            for name in here:
                if steps := self.augment.get(name):
                    option = f"data.augment.{name}"
                    inputs[name] = apply(steps, inputs[name], option=option, id=id)
        for name in here:
            steps, option = self.transform.get(name, ()), f"data.transform.{name}"
            kind = self.kinds.get(name)
            inputs[name] = finish(inputs[name], steps, kind=kind, option=option, id=id)
        return Example(inputs, self._target(drawn), id)

    def _target(self, index: int) -> int | Tensor:
        return self.source.targets[index] if self._classes is None else int(self._classes[index])

    def _readable(self, epoch: int, index: int) -> tuple[int, dict[str, Tensor | None]]:
        """The inputs of an example; in training of another where it has none that can be read."""
        inputs = self._inputs(epoch, index)
        if self.training and all(value is None for value in inputs.values()):
            rng = generator(self.seed, epoch, index, 0)
            for another in rng.integers(len(self), size=_MAX_REDRAWS).tolist():
                index, inputs = another, self._inputs(epoch, another)
                if any(value is not None for value in inputs.values()):
                    break
        return index, inputs

    def _inputs(self, epoch: int, index: int) -> dict[str, Tensor | None]:
        rng = generator(self.seed, epoch, index) if self._draws else None
        read = self.source.cells(index) if rng is None else self.source.read(index, rng)
        cells: dict[str, Cell] = {
            name: None if self.lacking[index, column] else read.get(name)
            for column, name in enumerate(self.modalities)
        }
        return decode_all(
            cells,
            kinds=self.kinds,
            id=self.source.ids[index],
            broken=self.broken,
            rng=rng if self.training else None,
        )

    def lengths(self) -> np.ndarray | None:
        """(n,) how long the examples are, each modality in units of its mean; None = not known."""
        known = []
        for column, name in enumerate(self.modalities):
            lengths = self.source.lengths(name, self.kinds.get(name))
            if lengths is not None:
                lengths = np.where(self.lacking[:, column], 0, lengths)
                known.append(lengths / max(lengths.mean(), 1))
        return np.sum(known, axis=0) if known else None


def decode_all(
    cells: Mapping[str, Cell],
    *,
    kinds: Mapping[str, Kind],
    id: str,
    broken: BrokenExamples | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, Tensor | None]:
    """The tensors of an example's cells; see `decode`.

    Where a film is both a video and an audio modality, its sound is that of the span which the
    frames are taken from.

    Args:
        cells: modality → cell.
        kinds: modality → what decodes it.
        id: of the example.
        broken: where to report what cannot be decoded; None = raise.
        rng: draws which part of a cell training takes; None = evaluation.
    """
    inputs: dict[str, Tensor | None] = dict(cells)
    for film, kind in kinds.items():
        if isinstance(kind, VideoOptions) and kind.draws and is_film(inputs.get(film)):
            for name, other in kinds.items():
                if isinstance(other, AudioOptions) and inputs.get(name) == inputs[film]:
                    with suppress(ValueError):  # each is reported below
                        inputs[film], inputs[name] = read_clip(
                            inputs[film], kind, audio=other, rng=rng
                        )
                    break
    return {
        name: decode(cell, name=name, kind=kinds.get(name), id=id, broken=broken, rng=rng)
        for name, cell in inputs.items()
    }


def decode(
    cell: Cell,
    *,
    name: str,
    kind: Kind | None,
    id: str,
    broken: BrokenExamples | None,
    rng: np.random.Generator | None = None,
) -> Tensor | None:
    """The tensor of a cell; None where it holds nothing, or is broken and was reported.

    Args:
        cell: of an example; a tensor is taken as it is.
        name: its modality.
        kind: decodes it.
        id: of the example.
        broken: where to report what cannot be decoded; None = raise.
        rng: draws which part of the cell is taken, where its kind does so.

    Raises:
        ValueError: the cell cannot be decoded, or too many cannot.
    """
    if cell is None or isinstance(cell, Tensor):
        return cell
    if kind is None:
        raise ValueError(f"data.{name} is not set: the {name} of example {id} cannot be decoded.")
    try:
        options = {"rng": rng} if kind.draws else {}
        return kind.decode(cell, where=f"example {id}", **options)
    except ValueError as error:
        if broken is None:
            raise
        file = str(cell) if isinstance(cell, Path) else ""
        broken.report(id, name, file=file, reason=str(error))
        return None


def draw_missing(
    probabilities: Sequence[float], *, absent: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Which examples lack which modality: at random, but each example keeps at least one.

    Args:
        probabilities: of each modality to be left out.
        absent: (n, modalities) bool, True where the example has none to begin with.
        rng: source of randomness.

    Returns:
        (n, modalities) bool, `absent` included. Rows all absent to begin with stay so.
    """
    chance = np.asarray(probabilities, dtype=float)
    draws = rng.random(absent.shape)
    lacking = absent | (draws < chance)
    # Where everything went, the modality that was nearest to being kept stays.
    margin = np.where(absent, -np.inf, draws - chance)
    emptied = lacking.all(axis=1) & ~absent.all(axis=1)
    lacking[emptied, margin[emptied].argmax(axis=1)] = False
    return lacking


def hold_out(groups: Sequence[object], share: float, *, rng: np.random.Generator) -> np.ndarray:
    """A stratified part of a data set: about `share` of every group, at least one of each.

    A group of a single example stays where it is, so that nothing vanishes from training.

    Args:
        groups: one hashable and orderable value an example (its class, say).
        share: of the examples to hold out, in (0, 1).
        rng: source of randomness.

    Returns:
        (n,) bool, True on the examples held out.
    """
    if not 0 < share < 1:
        raise ValueError(f"The share to hold out must lie inside (0, 1), got {share}.")
    members: dict[object, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    held_out = np.zeros(len(groups), dtype=bool)
    for group in sorted(members):
        indices = members[group]
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        held_out[rng.permutation(indices)[:count]] = True
    return held_out
