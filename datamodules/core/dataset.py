"""One split of a data set: `Source` gives an example, `Split` decodes, seeds and augments it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.core.bad_examples import BrokenExamples
from datamodules.core.collate import Example, Examples
from datamodules.core.seeding import derive_seed, generator, torch_state_kept
from datamodules.readers import Cell, Kind
from datamodules.readers.audio import AudioOptions
from datamodules.readers.video import VideoOptions, is_film, read_clip
from datamodules.transforms.apply import Transforms, apply, finish

SPLITS = ("train", "val", "test")
Pair = tuple[int, int]  # epoch, index
Inputs = dict[str, list[Tensor | None]]  # modality → the tensors of some examples

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

    def cells(self, indices: Sequence[int]) -> dict[str, list[Cell]]:
        """What some examples have of each modality as it lies on the disk; None = absent."""
        raise TypeError(f"{type(self).__name__} draws its examples, it has no cells.")

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Cell]:
        """The inputs of one example, decoded or not; all randomness comes from `rng`.

        Images may be uint8, as library transforms like them best: the collator scales them to
        [-1, 1] after all transforms.
        """
        raise TypeError(f"{type(self).__name__} has cells, it draws nothing.")

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
        self.augment = {name: augment[name] for name in modalities if (augment or {}).get(name)}
        self.transform = dict(transform or {})
        self.broken = broken
        self._targets = source.targets.numpy()
        self._drawn = type(source).read is not Source.read
        # A generator takes longer than a cell: it is made only for what draws from it.
        self._draws = self._drawn or (training and any(k.draws for k in self.kinds.values()))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int] | int) -> Example:
        return self.__getitems__([key])[0]

    @torch.no_grad()
    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> Examples:
        """A batch at once, as DataLoader asks for it."""
        # Lightning's overfit_batches puts in a sampler of its own, of plain indices.
        pairs = [key if isinstance(key, tuple) else (0, key) for key in keys]
        if not self.training:
            pairs = [(0, index) for _, index in pairs]
        rows = [index for _, index in pairs]
        ids = [self.source.ids[row] for row in rows]
        inputs = self._inputs(pairs, ids)
        if self.training:
            self._redraw(pairs, rows, ids, inputs)
        if self.training and self.augment:
            with torch_state_kept():
                self._augment(pairs, ids, inputs)
        for name, column in inputs.items():
            steps, option = self.transform.get(name, ()), f"data.transform.{name}"
            kind = self.kinds.get(name)
            inputs[name] = finish(column, steps, kind=kind, option=option, ids=ids)
        seed = derive_seed(self.seed, *pairs[0], 2) if self.training else 0  # of what mixes them
        return Examples(inputs, {"target": torch.from_numpy(self._targets[rows])}, ids, seed)

    def _inputs(self, pairs: Sequence[Pair], ids: Sequence[str]) -> Inputs:
        """The tensors of some examples."""
        try:
            return self._read(pairs, ids)
        except ValueError as error:
            if self.broken is not None:
                raise
            raise ValueError(f"{error} data.on_error=skip goes on without it.") from error

    def _read(self, pairs: Sequence[Pair], ids: Sequence[str]) -> Inputs:
        indices = [index for _, index in pairs]
        rngs = [generator(self.seed, *pair) for pair in pairs] if self._draws else None
        if rngs is not None and self._drawn:
            read = [self.source.read(index, rng) for index, rng in zip(indices, rngs, strict=True)]
            columns = {name: [cells.get(name) for cells in read] for name in self.modalities}
        else:
            found = self.source.cells(indices)
            columns = {name: self._own(name, found[name]) for name in self.modalities}
        for row, column in np.argwhere(self.lacking[indices]).tolist():
            columns[self.modalities[column]][row] = None
        return decode_all(
            columns,
            kinds=self.kinds,
            ids=ids,
            broken=self.broken,
            rngs=rngs if self.training else None,
        )

    def _own(self, name: str, cells: Sequence[Cell]) -> list[Cell]:
        """The cells; copies of tensors that steps may change, which a source keeps for later."""
        if self.transform.get(name) or (self.training and self.augment.get(name)):
            return [cell.clone() if isinstance(cell, Tensor) else cell for cell in cells]
        return list(cells)

    def _redraw(
        self, pairs: Sequence[Pair], rows: list[int], ids: list[str], inputs: Inputs
    ) -> None:
        """Puts others in the place of examples of which nothing could be read."""
        lacks = ({row for row, v in enumerate(column) if v is None} for column in inputs.values())
        for place in sorted(set.intersection(*lacks)):
            epoch, index = pairs[place]
            rng = generator(self.seed, epoch, index, 0)
            for another in rng.integers(len(self), size=_MAX_REDRAWS).tolist():
                rows[place], ids[place] = another, self.source.ids[another]
                found = self._inputs([(epoch, another)], [ids[place]])
                for name, (value,) in found.items():
                    inputs[name][place] = value
                if any(value is not None for (value,) in found.values()):
                    break

    def _augment(self, pairs: Sequence[Pair], ids: Sequence[str], inputs: Inputs) -> None:
        for row, (pair, id) in enumerate(zip(pairs, ids, strict=True)):
            torch.default_generator.manual_seed(derive_seed(self.seed, *pair, 1))
            for name, steps in self.augment.items():
                if (value := inputs[name][row]) is not None:
                    option = f"data.augment.{name}"
                    inputs[name][row] = apply(steps, value, option=option, id=id)

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
    cells: Mapping[str, Sequence[Cell]],
    *,
    kinds: Mapping[str, Kind],
    ids: Sequence[str],
    broken: BrokenExamples | None = None,
    rngs: Sequence[np.random.Generator] | None = None,
) -> Inputs:
    """The tensors of the cells of some examples; see `decode`.

    Where a film is both a video and an audio modality, its sound is that of the span which the
    frames are taken from.

    Args:
        cells: modality → cells.
        kinds: modality → what decodes them.
        ids: of the examples.
        broken: where to report what cannot be decoded; None = raise.
        rngs: draw which part of an example's cells training takes; None = evaluation.
    """
    columns: dict[str, list[Cell]] = {name: list(column) for name, column in cells.items()}
    films = [n for n, k in kinds.items() if isinstance(k, VideoOptions) and k.draws]
    for film, row in product(films, range(len(ids))):
        if not is_film(cell := columns[film][row]):
            continue
        for name, kind in kinds.items():
            if isinstance(kind, AudioOptions) and columns[name][row] == cell:
                rng = None if rngs is None else rngs[row]
                with suppress(ValueError):  # each is reported below
                    columns[film][row], columns[name][row] = read_clip(
                        cell, kinds[film], audio=kind, rng=rng
                    )
                break
    return {
        name: decode(column, name=name, kind=kinds.get(name), ids=ids, broken=broken, rngs=rngs)
        for name, column in columns.items()
    }


def decode(
    cells: Sequence[Cell],
    *,
    name: str,
    kind: Kind | None,
    ids: Sequence[str],
    broken: BrokenExamples | None,
    rngs: Sequence[np.random.Generator] | None = None,
) -> list[Tensor | None]:
    """The tensors of cells; None where one holds nothing, or is broken and was reported.

    Args:
        cells: one modality of some examples; a tensor is taken as it is.
        name: the modality.
        kind: decodes them.
        ids: of the examples.
        broken: where to report what cannot be decoded; None = raise.
        rngs: draw which part of a cell is taken, where its kind does so.

    Raises:
        ValueError: a cell cannot be decoded, or too many cannot.
    """
    if kind is not None and (rngs is None or not kind.draws):
        with suppress(ValueError):  # one by one it is named
            if (together := kind.decode_all(cells)) is not None:
                return together
    found: list[Tensor | None] = []
    for row, cell in enumerate(cells):
        if cell is None or isinstance(cell, Tensor):
            found.append(cell)
            continue
        if kind is None:
            raise ValueError(
                f"data.{name} is not set: the {name} of example {ids[row]} cannot be decoded."
            )
        options = {"rng": None if rngs is None else rngs[row]} if kind.draws else {}
        try:
            found.append(kind.decode(cell, where=f"example {ids[row]}", **options))
        except ValueError as error:
            if broken is None:
                raise
            file = str(cell) if isinstance(cell, Path) else ""
            broken.report(ids[row], name, file=file, reason=str(error))
            found.append(None)
    return found


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
