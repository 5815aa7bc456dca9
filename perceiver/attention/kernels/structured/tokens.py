"""Content beside position codes, a chunk of tokens at a time, and its products with queries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver.ops.matmul import products
from perceiver.shapes import Float

# Scores that a chunk holds: 4 MiB in float32, what stays in a core's share of the cache.
CHUNK_NUMBERS = 1 << 20
# On other devices, 128 MiB: so large that launching kernels does not count.
DEVICE_CHUNK_NUMBERS = 1 << 25
# Lines of a grid that a chunk holds at most: each adds a column to the product of the scores.
CHUNK_LINES = 8


@dataclass(frozen=True)
class Chunk:
    """Some examples and some of their tokens, whole lines of a grid."""

    examples: slice
    lines: slice
    tokens: slice


class Tokens:
    """The tokens chunk by chunk, and products of a chunk with queries.

    A chunk is the matrix [content, tail], tail being ρ·code, or on a grid ρ in the column of the
    token's own line: so one product gives the scores of content and lines.
    """

    def __init__(
        self, content: Tensor, rho: Tensor | None, code: Tensor | None, lines: int, width: int
    ) -> None:
        self.content, self.rho, self.code = content, rho, code
        self.batch, self.num_tokens, self.channels = content.shape
        self.is_grid = width > 0
        self.lines, self.width = (lines, width) if self.is_grid else (self.num_tokens, 1)
        self.dtype = torch.float64 if content.dtype == torch.float64 else torch.float32
        self._rooms: dict[str, Tensor] = {}

    def chunks(self, rows: int) -> Iterator[Chunk]:
        is_cpu = self.content.device.type == "cpu"
        numbers = CHUNK_NUMBERS if is_cpu else DEVICE_CHUNK_NUMBERS
        line = max(1, rows * self.width)
        lines = max(1, min(self.lines, numbers // line))
        if self.is_grid:
            lines = min(lines, CHUNK_LINES)
        group = max(1, numbers // (line * lines))
        for first in range(0, self.batch, group):
            examples = slice(first, min(first + group, self.batch))
            for start in range(0, self.lines, lines):
                stop = min(start + lines, self.lines)
                tokens = slice(start * self.width, stop * self.width)
                yield Chunk(examples, slice(start, stop), tokens)

    def room(self, name: str, *shape: int) -> Tensor:
        """Memory that every chunk uses again."""
        numbers = math.prod(shape)
        if name not in self._rooms or self._rooms[name].numel() < numbers:
            self._rooms[name] = torch.zeros(numbers, dtype=self.dtype, device=self.content.device)
        return self._rooms[name][:numbers].view(shape)

    def rho_of(self, chunk: Chunk) -> Tensor:
        assert self.rho is not None
        return self.rho[chunk.examples, chunk.tokens].to(self.dtype)

    def rho_grid(self, chunk: Chunk) -> Tensor:
        """(b, lines, columns)."""
        return self.rho_of(chunk).unflatten(1, (-1, self.width))

    def load(self, chunk: Chunk) -> Tensor:
        """(b, tokens, channels + tail) of a chunk."""
        content = self.content[chunk.examples, chunk.tokens]
        b, m, k = content.shape
        if not self.is_grid and self.code is None:
            return content.to(self.dtype)
        if self.is_grid:
            lines = m // self.width
            # Off its own line a token has zeros; a room starts with zeros and keeps them, so rooms
            # of other layouts must not share it.
            tokens = self.room(f"tokens {b} {lines}", b, m, k + lines)
            own = tokens[..., k:].unflatten(1, (lines, self.width)).diagonal(dim1=1, dim2=3)
            own.copy_(self.rho_grid(chunk).transpose(1, 2))
        else:
            assert self.code is not None
            tokens = self.room("tokens", b, m, k + self.code.shape[1])
            code = self.code[chunk.tokens].to(self.dtype)
            torch.mul(self.rho_of(chunk)[..., None], code, out=tokens[..., k:])
        tokens[..., :k] = content
        return tokens

    def queries(
        self, name: str, query: Tensor, tail: Tensor | None, chunk: Chunk
    ) -> Float[Tensor, "b r kt"]:
        """The queries of a chunk's channels: content, and its lines or the code."""
        query = query[chunk.examples] if query.shape[0] > 1 else query
        if tail is None:
            return query.to(self.dtype).expand(size(chunk.examples), -1, -1)
        tail = tail[chunk.examples] if tail.shape[0] > 1 else tail
        tail = tail[..., chunk.lines] if self.is_grid else tail
        widths = query.shape[-1], tail.shape[-1]
        joined = self.room(name, size(chunk.examples), query.shape[1], sum(widths))
        joined[..., : widths[0]] = query
        joined[..., widths[0] :] = tail
        return joined

    def product(
        self, name: str, tokens: Tensor, query: Tensor, columns: Tensor | None, chunk: Chunk
    ) -> Float[Tensor, "b r m"]:
        """Queries times tokens, with a grid's column terms."""
        out = self.room(name, query.shape[0], query.shape[1], tokens.shape[1])
        out = products(query, tokens.mT, out=out)
        if columns is not None:
            columns = columns[chunk.examples] if columns.shape[0] > 1 else columns
            grid = out.unflatten(-1, (-1, self.width))
            grid.addcmul_(columns.to(self.dtype)[:, :, None], self.rho_grid(chunk)[:, None])
        return out

    def add_columns(self, weights: Tensor, chunk: Chunk, into: Tensor) -> None:
        """Add the weights times ρ, summed over lines."""
        rho, grid = self.rho_grid(chunk), weights.unflatten(-1, (-1, self.width))
        for line in range(grid.shape[2]):
            into[chunk.examples].addcmul_(grid[:, :, line], rho[:, None, line])

    def add_read(
        self, weights: Tensor, tokens: Tensor, chunk: Chunk, content: Tensor, tail: Tensor
    ) -> None:
        """Add what weights read of content and tail."""
        read = self.room("read", weights.shape[0], weights.shape[1], tokens.shape[2])
        read = products(weights, tokens, out=read)
        content[chunk.examples] += read[..., : self.channels]
        if tail.shape[-1]:
            tail[chunk.examples][..., self.tail_slice(chunk)] += read[..., self.channels :]

    def tail_slice(self, chunk: Chunk) -> slice:
        return chunk.lines if self.is_grid else slice(None)


def size(part: slice) -> int:
    return part.stop - part.start
