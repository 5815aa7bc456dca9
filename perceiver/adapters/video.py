"""Videos as byte arrays: every pixel of every frame, or patches in space and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from perceiver.adapters.adapter import Adapter, check_mask
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


class VideoAdapter(Adapter):
    """One token a block of frames × rows × columns (a "tubelet", Arnab et al. 2021, 3.2).

    Its content is channel by channel, frame by frame, row by row. Blocks of 1 × 1 × 1 are pixels,
    the raw input of Jaegle et al. 2021, 4.2. The grid has three axes, time first, and positions
    one code for each: at 16 × 56 × 56 blocks 128 codes, not 50,176.

    Clips may be shorter than `num_frames`, and padded to one length: give absolute positions, then
    a clip's codes do not depend on what it is batched with.

    Args:
        channels: colour channels.
        num_frames: the longest clip that is meant to come.
        size: height and width in pixels; `patch_size` divides both.
        patch_size: side of a block in pixels.
        frames_per_patch: length of a block; the last one is padded with zeros.
        position: makes the position codes of the grid of blocks; see `Adapter`.
        embed_dim: width of a linear embedding of a block; None = its pixels as they are.

    Raises:
        ValueError: if `patch_size` does not divide the size.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_frames: int,
        size: Sequence[int],
        patch_size: int,
        frames_per_patch: int,
        position: Callable[..., Positions] | None,
        embed_dim: int | None = None,
    ) -> None:
        self._check_size(size, patch_size)
        super().__init__(
            content_dim=channels * frames_per_patch * patch_size**2,
            shape=[-(-num_frames // frames_per_patch), *(side // patch_size for side in size)],
            position=position,
            embed_dim=embed_dim,
        )
        self.video_channels = channels
        self.patch_size, self.frames_per_patch = patch_size, frames_per_patch

    @staticmethod
    def _check_size(size: Sequence[int], patch_size: int) -> None:
        if any(side % patch_size for side in size):
            raise ValueError(f"patch_size={patch_size} does not divide the frame size {list(size)}")

    def forward(
        self,
        values: Float[Tensor, "b frames p height width"],
        mask: Bool[Tensor, "b frames"] | None = None,
    ) -> Segment:
        if values.dim() != 5 or values.shape[2] != self.video_channels:
            raise ValueError(
                f"video has shape {tuple(values.shape)}; expected (batch, frames, "
                f"{self.video_channels}, height, width)"
            )
        check_mask(mask, values.shape[:2])
        self._check_size(values.shape[3:], self.patch_size)
        if mask is not None:
            values = values.masked_fill(~mask[:, :, None, None, None], 0.0)
        length, side = self.frames_per_patch, self.patch_size
        values = F.pad(values, (0, 0, 0, 0, 0, 0, 0, -values.shape[1] % length))
        blocks = values.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(1, (-1, length))
        # b times length p rows side columns side → b times rows columns p length side side
        blocks = blocks.permute(0, 1, 4, 6, 3, 2, 5, 7)
        shape = (blocks.shape[1], blocks.shape[2], blocks.shape[3])
        if mask is not None:
            # A block is real if its first frame is: padding lies at the end.
            mask = mask[:, ::length].repeat_interleave(shape[1] * shape[2], dim=1)
        return self.segment(blocks.flatten(4).flatten(1, 3), shape, mask)
