"""Image files → uint8 tensors of one size and number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from datamodules.collate import Field

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageOptions:
    """What an image is to the model (`data.image` in the config).

    Args:
        channels: 1 grey, 3 colour, 4 colour and opacity; files are converted.
        size: (height, width) in pixels.
        resize: scale files of another size; False = refuse them.
    """

    channels: int
    size: tuple[int, int]
    resize: bool = False

    def __post_init__(self) -> None:
        if self.channels not in _MODES:
            raise ValueError(f"data.image.channels={self.channels}, expected one of 1, 3, 4.")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"data.image.size={list(self.size)}, expected [height, width].")
        object.__setattr__(self, "size", tuple(self.size))

    def field(self) -> Field:
        """For the collator."""
        return Field((self.channels, *self.size))


def read_image(path: Path, options: ImageOptions) -> Tensor:
    """Decodes an image file of any kind that Pillow knows; of an animation, the first frame.

    EXIF rotation is applied; palette, CMYK, grey and 16-bit files are converted.

    Returns:
        (channels, height, width) uint8.

    Raises:
        ValueError: the file is not an image, is cut short, is dangerously large, or has another
            size than `options.size` while `options.resize` is off.
    """
    try:
        with Image.open(path) as file:
            image = _convert(ImageOps.exif_transpose(file), _MODES[options.channels])
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        size = path.stat().st_size if path.exists() else 0
        what = str(error) if size else "the file has zero bytes"
        raise ValueError(f"Cannot read the image {path}: {what}. Replace or remove it.") from error
    height, width = options.size
    if image.size != (width, height):
        if not options.resize:
            raise ValueError(
                f"The image {path} is {image.height}×{image.width} pixels (height × width), "
                f"data.image.size is [{height},{width}]: set data.image.resize=true to scale files "
                f"or data.image.size=[{image.height},{image.width}]."
            )
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels.reshape(height, width, options.channels).permute(2, 0, 1).contiguous()


def scale_pixels(pixels: Tensor) -> Tensor:
    """uint8 in 0…255 → float32 in [-1, 1]."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white, save it as 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        values = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert(mode)
