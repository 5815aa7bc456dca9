"""One split of a data set: `Source` holds its columns, `Split` decodes, seeds and augments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.core.bad_examples import BadExamples
from datamodules.core.collate import Example, Examples
from datamodules.core.columns import Column
from datamodules.core.decoding import Inputs, decode_all
from datamodules.loading.seeding import derive_seed, generator, torch_state_kept
from datamodules.readers import Cell, Reader
from datamodules.transforms.apply import Transforms, apply, finish

SPLITS = ("train", "val", "test")
Pair = tuple[int, int]  # epoch, index

_MAX_REDRAWS = 10  # of a training example that turned out to be broken altogether


class Source:
    """The examples of one split: labels and names known up front, inputs read on demand.

    Of stored examples it holds the columns, whose cells the readers decode. A source that draws
    its examples implements `read` instead, and has columns of what is known beforehand at most.

    Args:
        targets: (n,) class indices, or (n, k) 0/1 labels or real values.
        ids: n names that lead a reader to the example: a file, a file and line.
        columns: modality → its cells.
    """

    def __init__(
        self,
        *,
        targets: Sequence[int] | Tensor,
        ids: Sequence[str],
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        self.targets = torch.as_tensor(targets)
        self.ids = ids
        self.columns = dict(columns or {})

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_drawn(self) -> bool:
        """Whether `read` draws the examples."""
        return type(self).read is not Source.read

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Cell]:
        """The inputs of one example, decoded or not; all randomness comes from `rng`.

        Images may be uint8, as library transforms like them best: the collator scales them to
        [-1, 1] after all transforms.
        """
        raise TypeError(f"{type(self).__name__} has columns, it draws nothing.")


class Split(Dataset[Example]):
    """A map-style dataset over (epoch, index) keys, as `EpochSampler` yields them.

    In training an example is drawn anew every epoch, from (seed, epoch, index); in evaluation it
    depends on (seed, index) alone.

    Where a modality cannot be decoded and `bad_examples` is given, the example goes on without it.
    If it has nothing else, training takes another example in its place, and evaluation keeps it
    with nothing in it, for the model to answer as best it can: so batches have the same sizes in
    every process, and no example is counted twice.

    Args:
        source: the examples.
        modalities: what to keep of what the source reads.
        lacking: (n, len(modalities)) bool, True = leave the modality out of the example.
        training: whether epochs differ and `augment` applies.
        seed: of this split; two splits of one data set need two.
        readers: modality → what decodes its cells; one whose source gives tensors needs none.
        augment: modality → callables on its tensor, applied in order, in training.
        transform: the same, always, after them.
        bad_examples: where to report what cannot be decoded; None = raise.
    """

    def __init__(
        self,
        source: Source,
        *,
        modalities: Sequence[str],
        lacking: np.ndarray,
        training: bool,
        seed: int,
        readers: Mapping[str, Reader] | None = None,
        augment: Mapping[str, Transforms] | None = None,
        transform: Mapping[str, Transforms] | None = None,
        bad_examples: BadExamples | None = None,
    ) -> None:
        self.source = source
        self.modalities = list(modalities)
        self.lacking = lacking
        self.training = training
        self.seed = seed
        self.readers = dict(readers or {})
        self.augment = {name: augment[name] for name in modalities if (augment or {}).get(name)}
        self.transform = dict(transform or {})
        self.bad_examples = bad_examples
        self._targets = source.targets.numpy()
        # A generator takes longer than a cell: it is made only for what draws from it.
        self._draws = source.is_drawn or (training and any(r.draws for r in self.readers.values()))

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
            reader = self.readers.get(name)
            inputs[name] = finish(column, steps, reader=reader, option=option, ids=ids)
        seed = derive_seed(self.seed, *pairs[0], 2) if self.training else 0  # of what mixes them
        return Examples(inputs, {"target": torch.from_numpy(self._targets[rows])}, ids, seed)

    def _inputs(self, pairs: Sequence[Pair], ids: Sequence[str]) -> Inputs:
        """The tensors of some examples."""
        try:
            return self._read(pairs, ids)
        except ValueError as error:
            if self.bad_examples is not None:
                raise
            raise ValueError(f"{error} data.on_error=skip goes on without it.") from error

    def _read(self, pairs: Sequence[Pair], ids: Sequence[str]) -> Inputs:
        indices = [index for _, index in pairs]
        rngs = [generator(self.seed, *pair) for pair in pairs] if self._draws else None
        if rngs is not None and self.source.is_drawn:
            read = [self.source.read(index, rng) for index, rng in zip(indices, rngs, strict=True)]
            columns = {name: [cells.get(name) for cells in read] for name in self.modalities}
        else:
            columns = {
                name: self._own(name, self.source.columns[name].cells(indices))
                for name in self.modalities
            }
        for row, column in np.argwhere(self.lacking[indices]).tolist():
            columns[self.modalities[column]][row] = None
        return decode_all(
            columns,
            readers=self.readers,
            ids=ids,
            bad_examples=self.bad_examples,
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
        for number, name in enumerate(self.modalities):
            column = self.source.columns.get(name)
            lengths = None if column is None else column.lengths(self.readers.get(name))
            if lengths is not None:
                lengths = np.where(self.lacking[:, number], 0, lengths)
                known.append(lengths / max(lengths.mean(), 1))
        return np.sum(known, axis=0) if known else None

    def blocks(self) -> np.ndarray | None:
        """(n,) numbers; examples that share one lie together and are best read together.

        None = any examples may be read one after another.
        """
        found = [column.blocks() for column in self.source.columns.values()]
        return None if not found or any(blocks is None for blocks in found) else found[0]
