"""Follow a path through a graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.sets.sequences.base import Drawn, SequenceDataModule


class GraphTraversalDataModule(SequenceDataModule):
    """Graph traversal (Graves et al. 2016): follow a path through a graph told edge by edge.

    A graph has `size` nodes with labels of their own; from each leads one edge of every relation.
    The edges (from, relation, to) come in random order, one per step. Then a path is asked: a node
    and a relation, and each step another relation; the answer of each step is the node reached.

    Args:
        labels: node labels to draw from.
        relations: kinds of edges.
        hops: length of a path.
        **common: options of `SequenceDataModule`.
    """

    smallest = 2

    def __init__(
        self, *, labels: int = 12, relations: int = 2, hops: int = 3, **common: Any
    ) -> None:
        self.labels, self.relations, self.hops = labels, relations, hops
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return 2 * self.labels + self.relations + 1, self.labels

    def check_size(self, size: int) -> None:
        super().check_size(size)
        if size > self.labels:
            raise ValueError(f"{size} nodes need as many labels: data.labels={self.labels}")

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        edges = size * self.relations
        names = rng.random((count, self.labels)).argsort(axis=1)[:, :size]
        # To any node but the one that the edge leaves.
        step = rng.integers(1, size, (count, size, self.relations))
        leads = (np.arange(size)[:, None] + step) % size
        rows = np.arange(count)
        inputs = np.zeros((count, edges + self.hops, self.widths()[0]), np.float32)
        target = np.zeros((count, edges + self.hops), np.int64)
        order = rng.random((count, edges)).argsort(axis=1)
        for t in range(edges):
            node, relation = np.divmod(order[:, t], self.relations)
            inputs[rows, t, names[rows, node]] = 1
            inputs[rows, t, self.labels + relation] = 1
            to = names[rows, leads[rows, node, relation]]
            inputs[rows, t, self.labels + self.relations + to] = 1
        node = rng.integers(0, size, count)
        inputs[rows, edges, names[rows, node]] = 1
        inputs[:, edges:, -1] = 1
        for t in range(edges, edges + self.hops):
            relation = rng.integers(0, self.relations, count)
            inputs[rows, t, self.labels + relation] = 1
            node = leads[rows, node, relation]
            target[:, t] = names[rows, node]
        return inputs, target, np.arange(edges + self.hops) >= edges
