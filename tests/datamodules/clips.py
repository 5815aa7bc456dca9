"""Tiny video files whose frames say which one they are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

STEP = 7  # grey levels from one frame to the next


def write_clip(
    path: Path,
    *,
    frames: int = 31,
    rate: int = 10,
    size: tuple[int, int] = (32, 48),
    codec: str = "libx264",
    key_every: int = 5,
    times: list[int] | None = None,
    rotation: int = 0,
    pictures: np.ndarray | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sound_rate: int = 16000,
) -> Path:
    """Frame i is grey of level STEP·i, or `pictures[i]`; `times` are its milliseconds."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt, stream.gop_size = "yuv420p", key_every
        if rotation:
            stream.set_display_rotation(rotation)
        track = None
        if sound is not None:
            track = file.add_stream(sound_codec, rate=sound_rate)
            track.layout = "mono" if sound.ndim == 1 else "stereo"
        for index in range(frames):
            grey = pictures is None
            pixels = np.full((*size, 3), STEP * index, np.uint8) if grey else pictures[index]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, rate if times is None else 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track is not None:
            layout = track.layout.name
            samples = np.atleast_2d(sound).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.rate, frame.pts = sound_rate, 0
            fit = av.AudioResampler(format=track.format.name, layout=layout, rate=sound_rate)
            for part in [*fit.resample(frame), *fit.resample(None)]:
                file.mux(track.encode(part))
            file.mux(track.encode(None))
    return path


def numbers(video) -> list[int]:
    """Which frames a (t, c, h, w) tensor holds."""
    return [round(float(frame.float().mean()) / STEP) for frame in video]
