"""Sound as byte arrays: chunks of the raw waveform, or patches of a spectrogram."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from perceiver.adapters.adapter import Adapter, check_mask
from perceiver.ops.matmul import without_autocast
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


def _checked(waveform: Tensor, mask: Tensor | None) -> Tensor:
    """The waveform with silence for padding, so that a token never holds what is not its clip."""
    if waveform.dim() != 2 or not waveform.is_floating_point():
        raise ValueError(
            f"audio has shape {tuple(waveform.shape)} and type {waveform.dtype}; expected a mono "
            "floating-point waveform (batch, samples)"
        )
    check_mask(mask, waveform.shape)
    return waveform if mask is None else waveform.masked_fill(~mask, 0.0)


class WaveformAdapter(Adapter):
    """One token a run of consecutive samples (Jaegle et al. 2021, 4.2: raw audio).

    Args:
        samples_per_token: length of a run; the last one is padded with zeros.
        sample_rate: samples a second.
        max_seconds: the longest waveform that is meant to come.
        position: makes the position codes over time; see `Adapter`.
        embed_dim: width of a linear embedding of a run; None = its samples as they are.
    """

    def __init__(
        self,
        *,
        samples_per_token: int,
        sample_rate: int,
        max_seconds: float,
        position: Callable[..., Positions] | None,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__(
            content_dim=samples_per_token,
            shape=[-(-math.ceil(sample_rate * max_seconds) // samples_per_token)],
            position=position,
            embed_dim=embed_dim,
        )
        self.samples_per_token = samples_per_token

    def forward(
        self, values: Float[Tensor, "b samples"], mask: Bool[Tensor, "b samples"] | None = None
    ) -> Segment:
        values = _checked(values, mask)
        chunk = self.samples_per_token
        content = F.pad(values, (0, -values.shape[1] % chunk)).unflatten(1, (-1, chunk))
        # A token is real if its first sample is: padding lies at the end.
        return self.segment(
            content, (content.shape[1],), None if mask is None else mask[:, ::chunk]
        )


class SpectrogramAdapter(Adapter):
    """One token a patch of a log-spectrogram, which is computed here, on the model's device.

    The transform is given, so any library's will do (torchaudio's MelSpectrogram in the shipped
    configs); it must pad with zeros, then padding a batch does not change an example's frames.

    Args:
        transform: (b, samples) → power spectrogram (b, bins, frames), frame t centred on sample
            t·hop_length.
        num_bins: bins that the transform gives.
        hop_length: samples from one frame to the next.
        sample_rate: samples a second.
        max_seconds: the longest waveform that is meant to come.
        position: makes the position codes over time (and frequency); see `Adapter`.
        frames_per_token: length of a patch in frames.
        bins_per_token: height of a patch in bins; None = all of them, a grid of one axis.
        embed_dim: width of a linear embedding of a patch; None = its values as they are.
        normalise: shift and scale each clip's log-spectrogram to mean 0 and variance 1.
        augment: applied in training to the (b, bins, frames) log-spectrogram, SpecAugment for one.

    Raises:
        ValueError: if `bins_per_token` does not divide `num_bins`; in `forward`, if the transform
            gives other bins or frames than promised.
    """

    def __init__(
        self,
        *,
        transform: nn.Module,
        num_bins: int,
        hop_length: int,
        sample_rate: int,
        max_seconds: float,
        position: Callable[..., Positions] | None,
        frames_per_token: int = 1,
        bins_per_token: int | None = None,
        embed_dim: int | None = None,
        normalise: bool = True,
        augment: nn.Module | None = None,
    ) -> None:
        bins = bins_per_token or num_bins
        if num_bins % bins:
            raise ValueError(f"bins_per_token={bins} does not divide num_bins={num_bins}")
        max_frames = math.ceil(sample_rate * max_seconds) // hop_length + 1
        max_tokens = -(-max_frames // frames_per_token)
        super().__init__(
            content_dim=frames_per_token * bins,
            shape=[max_tokens] if bins == num_bins else [max_tokens, num_bins // bins],
            position=position,
            embed_dim=embed_dim,
        )
        self.transform, self.augment = transform, augment
        self.hop_length, self.num_bins = hop_length, num_bins
        self.frames_per_token, self.bins_per_token = frames_per_token, bins
        self.normalise = normalise

    def forward(
        self, values: Float[Tensor, "b samples"], mask: Bool[Tensor, "b samples"] | None = None
    ) -> Segment:
        spectrogram = self.log_spectrogram(_checked(values, mask), mask)
        tile, bins = self.frames_per_token, self.bins_per_token
        spectrogram = F.pad(spectrogram, (0, -spectrogram.shape[-1] % tile))
        patches = spectrogram.unfold(1, bins, bins).unfold(2, tile, tile)  # b rows cols bins tile
        content = patches.transpose(1, 2).flatten(3)  # time first
        shape = (content.shape[1], content.shape[2])
        if mask is not None:
            frames = self._frames(mask)[:, ::tile]
            mask = frames[:, :, None].expand(-1, -1, shape[1]).flatten(1)
        return self.segment(
            content.flatten(1, 2), shape if self.bins_per_token < self.num_bins else shape[:1], mask
        )

    def _frames(self, mask: Bool[Tensor, "b samples"]) -> Bool[Tensor, "b frames"]:
        # The transform gives 1 + samples // hop frames; the last is centred beyond a full mask.
        return (
            F.pad(mask, (0, 1))[:, :: self.hop_length] | F.pad(mask, (1, 0))[:, :: self.hop_length]
        )

    def log_spectrogram(
        self, waveform: Float[Tensor, "b samples"], mask: Bool[Tensor, "b samples"] | None = None
    ) -> Float[Tensor, "b bins frames"]:
        """log(power + 1e-6), normalised over each clip's real frames, zero on the others.

        Computed in float32 at least, returned in the waveform's dtype.
        """
        with without_autocast(waveform.device):
            log = (self._power(waveform) + 1e-6).log()
        promised = (self.num_bins, 1 + waveform.shape[1] // self.hop_length)
        if log.shape[1:] != promised:
            raise ValueError(
                f"the transform gives {log.shape[1]} bins × {log.shape[2]} frames, but num_bins="
                f"{self.num_bins} and hop_length={self.hop_length} promise {promised[0]} × "
                f"{promised[1]}"
            )
        keep = torch.ones_like(log[:, :1])
        if mask is not None:
            keep = self._frames(mask)[:, None].to(log.dtype)
        if self.normalise:
            count = keep.sum((1, 2), keepdim=True).clamp(min=1) * log.shape[1]
            mean = (log * keep).sum((1, 2), keepdim=True) / count
            variance = ((log - mean).square() * keep).sum((1, 2), keepdim=True) / count
            log = (log - mean) * (variance + 1e-5).rsqrt()
        log = (log * keep).to(waveform.dtype)
        return self.augment(log) if self.training and self.augment is not None else log

    def _power(self, waveform: Float[Tensor, "b samples"]) -> Float[Tensor, "b bins frames"]:
        # Fourier transforms exist in full precision only, also in a half-precision model.
        if waveform.dtype.itemsize >= 4:
            return self.transform(waveform)
        wide = {name: buffer.float() for name, buffer in self.transform.named_buffers()}
        return functional_call(self.transform, wide, waveform.float())
