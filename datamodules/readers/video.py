"""Video files → a few frames of one size, and the sound track over the same span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.audio import AudioReader, read_track
from datamodules.readers.field import Field
from datamodules.readers.pyav import (
    FILM_SUFFIXES,
    PIXELS,
    FrameConverter,
    check_size,
    extent,
    frames_at,
    frames_per_second,
    opened,
)
from datamodules.readers.reader import Cell, Reader, sample, span

_SAMPLE = 32  # files whose headers are looked at
_LARGEST = 64  # side in pixels of what `fit` chooses for larger clips


@dataclass(frozen=True)
class VideoReader(Reader):
    """What a video is to the model (`data.video` in the config).

    Args:
        num_frames: most frames of an example.
        size: (height, width) in pixels.
        channels: 1 grey, 3 colour; files are converted.
        sampling: "uniform" (the middle of each of `num_frames` equal parts of the clip), "random"
            (a random moment of each part; in evaluation the middle) or "dense" (successive frames
            from a random place; in evaluation from the middle of the clip). A clip too short for
            dense sampling gives fewer frames; the other two repeat frames.
        frames_per_second: of dense sampling; None = the clip's own rate.
        resize: "crop" (scale until both sides suffice, keep the centre) or "stretch".
        max_seconds: only this much of a clip's beginning is looked at; None = all of it.
        max_decode: refuse clips of which more frames than this would have to be decoded.
    """

    fitted: ClassVar[tuple[str, ...]] = ("size",)
    suffixes: ClassVar[frozenset[str]] = FILM_SUFFIXES

    num_frames: int
    size: tuple[int, int]
    channels: int = 3
    sampling: str = "uniform"
    frames_per_second: float | None = None
    resize: str = "crop"
    max_seconds: float | None = None
    max_decode: int = 20_000

    def __post_init__(self) -> None:
        choices = {
            "sampling": ("uniform", "random", "dense"),
            "resize": ("crop", "stretch"),
            "channels": tuple(PIXELS),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"data.video.{name}={getattr(self, name)!r}, expected one of "
                    f"{', '.join(map(str, known))}."
                )
        if self.num_frames < 1 or self.max_decode < 1:
            raise ValueError(
                f"data.video.num_frames={self.num_frames}, data.video.max_decode="
                f"{self.max_decode}: expected at least 1."
            )
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"data.video.size={list(self.size)}, expected [height, width].")
        for name in ("frames_per_second", "max_seconds"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"data.video.{name}={value}, expected more than 0, or null.")
        object.__setattr__(self, "size", tuple(self.size))

    def field(self) -> Field:
        return Field((self.channels, *self.size), is_ragged=True, max_length=self.num_frames)

    @property
    def draws(self) -> bool:
        return self.sampling != "uniform"

    def decode(
        self, cell: Cell, *, where: str, rng: np.random.Generator | None = None
    ) -> Tensor | None:
        return read_clip(cell, self, rng=rng, where=where)[0]

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        """The size of the clips where all share a small one, in multiples of 8; else 64 × 64."""
        sizes = {header.size for header in _headers(columns)}
        found = min(sizes, default=(_LARGEST, _LARGEST))
        if len(sizes) > 1 or max(found) > _LARGEST:
            found = (_LARGEST, _LARGEST)
        found = tuple(max(8, round(side / 8) * 8) for side in found)
        return {"size": found} | {name: v for name, v in given.items() if v is not None}

    @classmethod
    def describe(cls, columns: Sequence[Sequence[Cell]]) -> str:
        headers = _headers(columns)
        if not headers:
            return ""
        sizes = Counter(f"{height}×{width}" for height, width in (h.size for h in headers))
        heard = sum(header.has_sound for header in headers) / len(headers)
        return (
            f"{', '.join(size for size, _ in sizes.most_common(4))} pixels, "
            f"{span([h.seconds for h in headers], 's')}, "
            f"{span([h.rate for h in headers], 'frames a second')}, {heard:.0%} with sound"
        )


@dataclass(frozen=True)
class _Header:
    """What is known of a clip before it is decoded."""

    size: tuple[int, int]
    seconds: float
    rate: float
    has_sound: bool


def _headers(columns: Sequence[Sequence[Cell]]) -> list[_Header]:
    found = []
    for cell in sample(columns, _SAMPLE):
        try:
            with opened(cell) as container:
                stream = container.streams.video[0]
                size = (stream.codec_context.height, stream.codec_context.width)
                seconds = extent(container, stream)[1]
                rate, has_sound = frames_per_second(stream), bool(container.streams.audio)
                found.append(_Header(size, seconds, rate, has_sound))
        except (ValueError, IndexError):
            continue
    return found


def sample_times(
    options: VideoReader, *, seconds: float, rate: float, rng: np.random.Generator | None
) -> tuple[np.ndarray, float, float]:
    """When to look at a clip.

    Args:
        options: which sampling.
        seconds: length of the clip.
        rate: its own frames a second.
        rng: draws the moments (training); None = always the same ones (evaluation).

    Returns:
        The moments in rising order, and the beginning and end of the span that they stand for,
        all in seconds from the beginning of the clip.
    """
    if options.max_seconds is not None:
        seconds = min(seconds, options.max_seconds)
    count = options.num_frames
    if options.sampling != "dense":
        shares = np.full(count, 0.5)
        if rng is not None and options.sampling == "random":
            shares = rng.random(count)
        return (np.arange(count) + shares) * (seconds / count), 0.0, seconds
    step = 1 / (options.frames_per_second or rate)
    held = max(1, int(seconds / step + 1e-3))
    count = min(count, held)
    start = held - count  # in steps, so that at the clip's own rate no frame comes twice
    start = start // 2 if rng is None else int(rng.integers(start + 1))
    return (np.arange(start, start + count) + 0.5) * step, start * step, (start + count) * step


def read_clip(
    file: Path | bytes,
    options: VideoReader,
    *,
    audio: AudioReader | None = None,
    rng: np.random.Generator | None = None,
    where: str = "",
) -> tuple[Tensor, Tensor | None]:
    """Decodes frames of a video and, if asked for, its sound over the span they are taken from.

    Frames are found by their timestamps, so a variable frame rate is honoured; rotation in the
    file's metadata is applied. Key frames are sought where that saves decoding.

    Args:
        file: a path, or the contents of a file.
        options: of the frames.
        audio: of the sound; None = leave it.
        rng: draws the moments (training); None = always the same ones (evaluation).
        where: a name for contents, for messages.

    Returns:
        (frames, channels, height, width) uint8; and the waveform (samples,), None where the file
        has no sound (or it was not asked for).

    Raises:
        ValueError: the file is no video, has no pictures, is cut short, or is too large to decode.
    """
    with opened(file, where) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        check_size(stream)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = torch.get_num_threads()  # 1 in a loader's worker
        first, seconds = extent(container, stream)
        rate = frames_per_second(stream)
        times, start, end = sample_times(options, seconds=seconds, rate=rate, rng=rng)
        convert = FrameConverter(
            size=options.size, channels=options.channels, crop=options.resize == "crop"
        )
        shown = frames_at(container, stream, first + times, max_decode=options.max_decode)
        video = torch.from_numpy(np.stack([convert(frame) for frame in shown]))
        if audio is None or not container.streams.audio:
            return video, None
        return video, read_track(container, audio, start=first + start, seconds=end - start)
