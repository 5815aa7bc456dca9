"""Video files → a few frames of one size, and the sound track over the same span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.collate import Field
from datamodules.readers.audio import AudioOptions, to_rate
from datamodules.readers.kind import Cell, Kind, sample, span

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SAMPLE = 32  # files whose headers are looked at
_LARGEST = 64  # side in pixels of what `fit` chooses for larger clips
_PIXELS = {1: "gray", 3: "rgb24"}
# Self-contained files alone: a playlist could name other files, or addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,gif,apng,wav,mp3"
_MAX_PIXELS = 2**26  # of a frame, about twice 8K
_BLIND_SEEK = 5.0  # seconds ahead that pay for a seek where no index says where key frames are


@dataclass(frozen=True)
class VideoOptions(Kind):
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
    suffixes: ClassVar[frozenset[str]] = frozenset(
        {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}
    )

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
            "channels": tuple(_PIXELS),
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
            with _opened(cell) as container:
                stream = container.streams.video[0]
                size = (stream.codec_context.height, stream.codec_context.width)
                seconds = _extent(container, stream)[1]
                found.append(_Header(size, seconds, _rate(stream), bool(container.streams.audio)))
        except (ValueError, IndexError):
            continue
    return found


def is_film(cell: Cell) -> bool:
    """Whether a cell is a container of pictures and sound, going by its name or first bytes."""
    if isinstance(cell, Path):
        return cell.suffix.lower() in VideoOptions.suffixes | {".m4a"}
    if not isinstance(cell, bytes):
        return False
    return cell[4:8] == b"ftyp" or cell[:4] == b"\x1aE\xdf\xa3" or cell[8:12] == b"AVI "


def sample_times(
    options: VideoOptions, *, seconds: float, rate: float, rng: np.random.Generator | None
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
    options: VideoOptions,
    *,
    audio: AudioOptions | None = None,
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
    with _opened(file, where) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        _check_size(stream)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = torch.get_num_threads()  # 1 in a loader's worker
        first, seconds = _extent(container, stream)
        times, start, end = sample_times(options, seconds=seconds, rate=_rate(stream), rng=rng)
        convert = _Converter(options)
        frames = [convert(frame) for frame in _frames_at(container, stream, first + times, options)]
        video = torch.from_numpy(np.stack(frames))
        if audio is None or not container.streams.audio:
            return video, None
        return video, _sound(container, audio, start=first + start, seconds=end - start)


def read_sound(
    file: Path | bytes,
    options: AudioOptions,
    *,
    where: str = "",
    rng: np.random.Generator | None = None,
) -> Tensor | None:
    """The sound track of a video from its first picture on, (samples,); None where it has none.

    Args:
        file: a path, or the contents of a file.
        options: of the sound.
        where: a name for contents, for messages.
        rng: draws the part that is read; None = the beginning.

    Raises:
        ValueError: the file is no video, or is cut short.
    """
    with _opened(file, where) as container:
        if not container.streams.audio:
            return None
        stream = (*container.streams.video, *container.streams.audio)[0]
        start = float((stream.start_time or 0) * stream.time_base)
        if rng is not None and container.duration:
            spare = container.duration / 1e6 - options.max_seconds
            start += max(spare, 0) * float(rng.random())
        return _sound(container, options, start=start, seconds=options.max_seconds)


def sound_header(cell: Cell) -> tuple[int, float] | None:
    """(rate in Hz, seconds) of a film's sound; None where it has none or cannot be read."""
    try:
        with _opened(cell) as container:
            return container.streams.audio[0].rate, (container.duration or 0) / 1e6
    except (ValueError, IndexError):
        return None


@contextmanager
def _opened(file: Path | bytes, where: str = "") -> Iterator[InputContainer]:
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


def _check_size(stream: VideoStream) -> None:
    height, width = stream.codec_context.height, stream.codec_context.width
    if not 0 < height * width <= _MAX_PIXELS:
        raise ValueError(f"its frames are {height}×{width} pixels, expected 1 to {_MAX_PIXELS}")


def _rate(stream: VideoStream) -> float:
    """Frames a second, on average."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def _extent(container: InputContainer, stream: VideoStream) -> tuple[float, float]:
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


def _frames_at(
    container: InputContainer, stream: VideoStream, times: Sequence[float], options: VideoOptions
) -> Iterator[VideoFrame]:
    """The frames that are on the screen at the given moments, which rise."""
    unit, decoded, may_seek = stream.time_base, 0, True
    frames = container.decode(stream)

    def advance() -> VideoFrame | None:
        nonlocal decoded
        decoded += 1
        if decoded > options.max_decode:
            raise ValueError(
                f"more than data.video.max_decode={options.max_decode} frames would have to be "
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
            if time > last + 0.5 / _rate(stream) + 1e-3:
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


class _Converter:
    """Frames → (channels, height, width) arrays: upright, scaled, cropped."""

    def __init__(self, options: VideoOptions) -> None:
        from av.video.reformatter import VideoReformatter

        self.options, self.reformatter = options, VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        height, width = self.options.size
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        sides = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
        scaled = height, width
        if self.options.resize == "crop":
            scale = max(height / sides[0], width / sides[1])
            scaled = max(height, round(sides[0] * scale)), max(width, round(sides[1] * scale))
        target = scaled if turns % 2 == 0 else scaled[::-1]
        converted = self.reformatter.reformat(
            frame,
            height=target[0],
            width=target[1],
            format=_PIXELS[self.options.channels],
            interpolation="BILINEAR",
        )
        pixels = np.rot90(converted.to_ndarray(), turns)
        top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
        pixels = pixels[top : top + height, left : left + width]
        return pixels.reshape(height, width, -1).transpose(2, 0, 1)


def _sound(
    container: InputContainer, options: AudioOptions, *, start: float, seconds: float
) -> Tensor | None:
    """The first sound track from `start` on, at most as long as `seconds` and the options say."""
    import av

    stream = container.streams.audio[0]
    rate = stream.rate
    length = round(min(seconds, options.max_seconds) * rate)
    wanted = length + 64 * -(-rate // options.sample_rate)  # what the resampling filter looks at
    container.seek(int(start / stream.time_base), stream=stream)
    resampler = av.AudioResampler(format="fltp")
    waveform, filled = torch.zeros(wanted), 0
    for packet in container.decode(stream):
        for frame in resampler.resample(packet):
            samples = torch.from_numpy(frame.to_ndarray()).mean(dim=0)
            begin = round((float(frame.pts * frame.time_base) - start) * rate)
            samples, begin = samples[max(0, -begin) :], max(0, begin)
            samples = samples[: max(0, wanted - begin)]
            waveform[begin : begin + len(samples)] = samples
            filled = max(filled, begin + len(samples))
        if filled >= wanted:
            break
    if not filled:
        return None
    waveform = to_rate(waveform[:filled], rate, options)
    return waveform[: -(-length * options.sample_rate // rate)]
