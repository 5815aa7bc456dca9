"""Files → tensors, one kind of modality a file, with the options that describe it."""

from datamodules.readers.array import ArrayOptions
from datamodules.readers.audio import AudioOptions
from datamodules.readers.image import ImageOptions
from datamodules.readers.reader import Cell, Kind
from datamodules.readers.text import TextOptions
from datamodules.readers.video import VideoOptions

# The kinds of modalities, in the order in which reports list them. A new one is a line here, a
# file beside this one and an adapter in conf/modality.
KINDS: dict[str, type[Kind]] = {
    "image": ImageOptions,
    "video": VideoOptions,
    "audio": AudioOptions,
    "text": TextOptions,
    "array": ArrayOptions,
}


def kind_of(modality: str) -> str:
    """The kind of a modality: `image_left` → `image`."""
    return modality.partition("_")[0]


__all__ = ["KINDS", "Cell", "Kind", "kind_of"]
