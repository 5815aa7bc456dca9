"""Image files → uint8 tensors of one size and number of channels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from datamodules.readers.field import Field
from datamodules.readers.reader import Cell, Reader, sample, span

_SAMPLE = 64  # files whose headers are looked at
_LARGEST = 64  # side in pixels of what `fit` chooses for larger pictures
_KEPT_PIXELS = 2**25  # of a file that stays as large as it is
_ORIENTATION = 0x0112  # EXIF: how the camera was held
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[number] for number in (5, 6, 7, 8)}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageReader(Reader):
    """What an image is to the model (`data.image` in the config).

    Args:
        channels: 1 grey, 3 colour, 4 colour and opacity; files are converted.
        size: (height, width) in pixels.
        resize: what to do with files of another size: True = scale them, False = refuse them,
            "crop" = scale until both sides suffice and keep the centre, "keep" = leave them, for
            transforms to bring to this size, "fit" = every image keeps its own size, larger ones
            are scaled down in proportion until they fit into `size`, and batches are padded and
            masked.
        max_pixels: of a file; None = Pillow's limit, and with "keep", where batches of them are in
            memory as they are, 2²⁵.
    """

    fitted: ClassVar[tuple[str, ...]] = ("channels", "size")
    suffixes: ClassVar[frozenset[str]] = frozenset(
        {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
    )

    channels: int
    size: tuple[int, int]
    resize: bool | str = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.channels not in _MODES:
            raise ValueError(f"data.image.channels={self.channels}, expected one of 1, 3, 4.")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"data.image.size={list(self.size)}, expected [height, width].")
        if self.resize not in (True, False, "crop", "keep", "fit"):
            raise ValueError(
                f"data.image.resize={self.resize!r}, expected true, false, crop, keep or fit."
            )
        object.__setattr__(self, "size", tuple(self.size))

    @property
    def most_pixels(self) -> int | None:
        """Of a file; None = any number."""
        if self.max_pixels is None and self.resize == "keep":
            return _KEPT_PIXELS
        return self.max_pixels or Image.MAX_IMAGE_PIXELS

    @property
    def is_costly(self) -> bool:  # type: ignore[override]
        return self.resize != "keep"  # transforms bring these to one size, each time anew

    def field(self) -> Field:
        return Field((self.channels, *self.size), has_own_size=self.resize == "fit")

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of another size is scaled to."""
        if self.resize != "fit":
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width, 1.0)
        return max(1, round(scale * height)), max(1, round(scale * width))

    def length_of(self, cell: Cell) -> int | None:
        if self.resize != "fit":
            return None
        header = _header(cell)
        return prod(self.scaled(*header[0])) if header else 0

    def decoded_bytes(self) -> int:
        return self.channels * self.size[0] * self.size[1]  # kept as bytes

    def decode(self, cell: Cell, *, where: str) -> Tensor:
        return read_image(cell, self, where=where)

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        """The size of the files where all share a small one, else 64 × 64; grey or RGB.

        Sides above 16 pixels become multiples of 4, so that patches can divide them.
        """
        headers = _headers(columns)
        sizes, modes = {size for size, _ in headers}, {mode for _, mode in headers}
        found = {
            "channels": 1 if modes and modes <= {"1", "L", "LA", "I", "I;16", "I;16B"} else 3,
            "size": (_LARGEST, _LARGEST),
        }
        if len(sizes) == 1 and max(max(sizes)) <= _LARGEST:
            found["size"] = tuple(
                side if side <= 16 else round(side / 4) * 4 for side in min(sizes)
            )
        return dict(given) | {
            name: value for name, value in found.items() if given.get(name) is None
        }

    @classmethod
    def describe(cls, columns: Sequence[Sequence[Cell]]) -> str:
        headers = _headers(columns)
        if not headers:
            return ""
        heights, widths = zip(*(size for size, _ in headers), strict=True)
        modes = ", ".join(mode for mode, _ in Counter(m for _, m in headers).most_common())
        return f"heights {span(heights, 'pixels')}, widths {span(widths, 'pixels')}; {modes}"


def read_image(source: Path | bytes, options: ImageReader, *, where: str = "") -> Tensor:
    """Decodes an image file of any kind that Pillow knows; of an animation, the first frame.

    EXIF rotation is applied; palette, CMYK, grey and 16-bit files are converted.

    Args:
        source: a file, or its content.
        options: what it is to become.
        where: a name for content, for messages.

    Returns:
        (channels, height, width) uint8, of `options.size` or, to "fit", at most that.

    Raises:
        ValueError: the file is not an image, is cut short, is dangerously large, or has another
            size than `options.size` while `options.resize` is off.
    """
    name = source if isinstance(source, Path) else f"of {where}"
    try:
        with Image.open(source if isinstance(source, Path) else BytesIO(source)) as file:
            _refuse_bombs(file, options.most_pixels)
            turn = _turn(file)
            size = file.size if turn not in _SIDEWAYS else file.size[::-1]
            height, width = options.scaled(size[1], size[0])
            scaled = (width, height) if turn not in _SIDEWAYS else (height, width)
            box = None
            if options.resize not in (False, "keep") and file.size != scaled:
                # A JPEG decodes at half, a quarter … of its size in a fraction of the time.
                drafted = file.draft(None, (2 * scaled[0], 2 * scaled[1]))
                box = drafted and drafted[1]
            image = _convert(file, _MODES[options.channels])
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        what = str(error).rstrip(".") if _num_bytes(source) else "the file has zero bytes"
        if isinstance(error, FileNotFoundError):
            what = "there is no such file"
        raise ValueError(f"Cannot read the image {name}: {what}. Replace or remove it.") from error
    if size != (width, height) and not options.resize:
        raise ValueError(
            f"The image {name} is {size[1]}×{size[0]} pixels (height × width), "
            f"data.image.size is [{height},{width}]: set data.image.resize=true to scale files "
            f"or data.image.size=[{size[1]},{size[0]}]."
        )
    if image.size != scaled and options.resize == "crop":
        image = ImageOps.fit(image, scaled, Image.Resampling.BILINEAR)
    elif image.size != scaled and options.resize != "keep":
        image = image.resize(scaled, Image.Resampling.BILINEAR, box=box)
    if turn is not None:
        image = image.transpose(turn)
    pixels = np.asarray(image).reshape(image.height, image.width, options.channels)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def refuse_other_shape(options: ImageReader, shape: Sequence[int], *, of: str) -> None:
    """Raises ValueError where pictures that are decoded already, (c, h, w), are not as configured.

    Args:
        options: `data.image`.
        shape: channels, height and width that there are.
        of: what holds the pictures, for the message.
    """
    channels, *size = shape
    if (options.channels, list(options.size)) != (channels, size):
        raise ValueError(
            f"{of} holds images of {channels} channels and {size} pixels, data.image says "
            f"{options.channels} and {list(options.size)}."
        )


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white, save it as 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        values = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    if image.mode != mode:
        return image.convert(mode)
    image.load()
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn the picture so that it stands as its camera saw it."""
    if image.format == "JPEG" and "exif" not in image.info:
        return None
    return _TURNS.get(image.getexif().get(_ORIENTATION))


def _refuse_bombs(image: Image.Image, limit: int | None) -> None:
    """Pillow itself merely warns up to twice its limit."""
    if limit and image.width * image.height > limit:
        raise ValueError(
            f"{image.height} × {image.width} pixels could be a decompression bomb (the limit is "
            f"{limit:,} pixels, data.image.max_pixels)"
        )


def _num_bytes(source: Path | bytes) -> int:
    if isinstance(source, Path):
        return source.stat().st_size if source.exists() else 0
    return len(source)


def _headers(columns: Sequence[Sequence[Cell]]) -> list[tuple[tuple[int, int], str]]:
    """((height, width), mode) of a sample of the files, as a viewer shows them."""
    headers = (_header(cell) for cell in sample(columns, _SAMPLE))
    return [header for header in headers if header]


def _header(cell: Cell) -> tuple[tuple[int, int], str] | None:
    """((height, width), mode), None where there is no image."""
    if isinstance(cell, np.ndarray | Tensor):
        return (int(cell.shape[-2]), int(cell.shape[-1])), "L" if len(cell) == 1 else "RGB"
    if cell is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(cell if isinstance(cell, Path) else BytesIO(cell)) as file:
                turn = _turn(file)
                width, height = file.size if turn not in _SIDEWAYS else file.size[::-1]
                return (height, width), file.mode
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError):
        return None
