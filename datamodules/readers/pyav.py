"""Films through PyAV: opening a file, its frames at given moments, its sound from a moment on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.reader import Cell

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FILM_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}
)
PIXELS = {1: "gray", 3: "rgb24"}  # channels → FFmpeg's name
# Self-contained files alone: a playlist could name other files, or addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,gif,apng,wav,mp3"
_MAX_PIXELS = 2**26  # of a frame, about twice 8K
_BLIND_SEEK = 5.0  # seconds ahead that pay for a seek where no index says where key frames are


def is_film(cell: Cell) -> bool:
    """Whether a cell is a container of pictures and sound, going by its name or first bytes."""
    if isinstance(cell, Path):
        return cell.suffix.lower() in FILM_SUFFIXES | {".m4a"}
    if not isinstance(cell, bytes):
        return False
    return cell[4:8] == b"ftyp" or cell[:4] == b"\x1aE\xdf\xa3" or cell[8:12] == b"AVI "


@contextmanager
def opened(file: Path | bytes, where: str = "") -> Iterator[InputContainer]:
    """The file opened by PyAV; whatever fails inside becomes one sentence that names it."""
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "Videos are decoded by the package av: pip install 'perceiver-multimodal[video]'."
        ) from error
    is_bytes = isinstance(file, bytes)
    name = f"of {where or f'{len(file)} bytes'}" if is_bytes else str(file)
    try:
        if not (file if is_bytes else Path(file).stat().st_size):
            raise ValueError("the file has zero bytes")
        source = BytesIO(file) if is_bytes else f"file:{file}"
        with av.open(source, options={"format_whitelist": _FORMATS}) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        what = str(error)
        if isinstance(error, FileNotFoundError):
            what = "there is no such file"
        if isinstance(error, av.FFmpegError) and not isinstance(error, OSError):
            what = "it is no video that FFmpeg knows, or a part of it is missing"
        raise ValueError(f"Cannot read the video {name}: {what}. Replace or remove it.") from error


def check_size(stream: VideoStream) -> None:
    """Raises ValueError for frames that would fill the memory."""
    height, width = stream.codec_context.height, stream.codec_context.width
    if not 0 < height * width <= _MAX_PIXELS:
        raise ValueError(f"its frames are {height}×{width} pixels, expected 1 to {_MAX_PIXELS}")


def frames_per_second(stream: VideoStream) -> float:
    """Frames a second, on average."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def extent(container: InputContainer, stream: VideoStream) -> tuple[float, float]:
    """When the pictures begin, and how long they last, in seconds."""
    unit = stream.time_base
    first = float((stream.start_time or 0) * unit)
    if stream.duration:
        return first, float(stream.duration * unit)
    if tag := stream.metadata.get("DURATION"):  # Matroska and WebM, from the file's beginning
        hours, minutes, seconds = tag.split(":")
        return first, int(hours) * 3600 + int(minutes) * 60 + float(seconds) - first
    # Containers made for streaming do not say; their packets do.
    ends = [
        (packet.pts * unit, (packet.pts + (packet.duration or 0)) * unit)
        for packet in container.demux(stream)
        if packet.pts is not None
    ]
    if not ends:
        raise ValueError("it holds no pictures")
    first = float(min(begin for begin, _ in ends))
    container.seek(int(first / unit), stream=stream)
    return first, float(max(end for _, end in ends)) - first


def frames_at(
    container: InputContainer, stream: VideoStream, times: Sequence[float], *, max_decode: int
) -> Iterator[VideoFrame]:
    """The frames that are on the screen at the given moments, which rise.

    Raises:
        ValueError: more than `max_decode` frames would have to be decoded, or the film is damaged.
    """
    unit, decoded, may_seek = stream.time_base, 0, True
    frames = container.decode(stream)

    def advance() -> VideoFrame | None:
        nonlocal decoded
        decoded += 1
        if decoded > max_decode:
            raise ValueError(
                f"more than data.video.max_decode={max_decode} frames would have to be "
                "decoded, cut the clip or set data.video.max_seconds"
            )
        frame = next(frames, None)
        if frame is not None and frame.pts is None:
            raise ValueError("its frames have no timestamps, remux it")
        return frame

    shown, following = None, advance()
    if following is None:
        raise ValueError("none of its frames can be decoded")
    for time in times:
        if may_seek and following is not None and _pays(stream, following.time, time):
            container.seek(int(time / unit), stream=stream)
            frames = container.decode(stream)
            shown, following = None, advance()
            if following is None or following.time > time:  # beyond it: walk there instead
                may_seek = False
                container.seek(stream.start_time or 0, stream=stream)
                frames = container.decode(stream)
                shown, following = None, advance()
        while following is not None and following.time <= time + 1e-6:
            shown, following = following, advance()
        if following is None:
            last = shown.time + float((shown.duration or 0) * unit)
            if time > last + 0.5 / frames_per_second(stream) + 1e-3:
                raise ValueError(
                    f"it is cut short, its header promises a frame at {time:.2f} s and its frames "
                    f"end at {last:.2f} s"
                )
        yield shown or following


def _pays(stream: VideoStream, position: float, time: float) -> bool:
    """Whether a key frame lies between where decoding stands and where it has to go."""
    entries = stream.index_entries
    if len(entries) <= 1:  # Matroska reads its index at the first seek
        return time - position > _BLIND_SEEK
    index = entries.search_timestamp(int(time / stream.time_base))
    return index >= 0 and float(entries[index].timestamp * stream.time_base) > position


class FrameConverter:
    """Frames → (channels, height, width) arrays: upright, scaled, cropped.

    Args:
        size: (height, width) in pixels.
        channels: 1 grey, 3 colour.
        crop: scale until both sides suffice and keep the centre; False = stretch.
    """

    def __init__(self, *, size: tuple[int, int], channels: int, crop: bool) -> None:
        from av.video.reformatter import VideoReformatter

        self.size, self.format, self.crop = size, PIXELS[channels], crop
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        height, width = self.size
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        sides = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
        scaled = height, width
        if self.crop:
            scale = max(height / sides[0], width / sides[1])
            scaled = max(height, round(sides[0] * scale)), max(width, round(sides[1] * scale))
        target = scaled if turns % 2 == 0 else scaled[::-1]
        converted = self.reformatter.reformat(
            frame,
            height=target[0],
            width=target[1],
            format=self.format,
            interpolation="BILINEAR",
        )
        pixels = np.rot90(converted.to_ndarray(), turns)
        top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
        return pixels.reshape(height, width, -1).transpose(2, 0, 1)


def read_samples(container: InputContainer, *, start: float, count: int) -> Tensor | None:
    """Up to `count` samples of the first sound track from `start` seconds on, channels averaged.

    They are at the track's own rate; None where it has none there.
    """
    import av

    stream = container.streams.audio[0]
    container.seek(int(start / stream.time_base), stream=stream)
    resampler = av.AudioResampler(format="fltp")
    waveform, filled = torch.zeros(count), 0
    for packet in container.decode(stream):
        for frame in resampler.resample(packet):
            samples = torch.from_numpy(frame.to_ndarray()).mean(dim=0)
            begin = round((float(frame.pts * frame.time_base) - start) * stream.rate)
            samples, begin = samples[max(0, -begin) :], max(0, begin)
            samples = samples[: max(0, count - begin)]
            waveform[begin : begin + len(samples)] = samples
            filled = max(filled, begin + len(samples))
        if filled >= count:
            break
    return waveform[:filled] if filled else None
