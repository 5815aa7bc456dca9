"""Files → tensors, one kind of modality per file, with the options that describe it."""

from datamodules.readers.array import ArrayReader
from datamodules.readers.audio import AudioReader
from datamodules.readers.category import CategoryReader
from datamodules.readers.date import DateReader
from datamodules.readers.field import Field
from datamodules.readers.image import ImageReader
from datamodules.readers.reader import Cell, Reader
from datamodules.readers.text import TextReader
from datamodules.readers.video import VideoReader

# The kinds of modalities, in the order in which reports list them. A new one is a line here, a
# file beside this one and an adapter in conf/modality.
READERS: dict[str, type[Reader]] = {
    "image": ImageReader,
    "video": VideoReader,
    "audio": AudioReader,
    "text": TextReader,
    "array": ArrayReader,
    "category": CategoryReader,
    "date": DateReader,
}


def kind_of(modality: str) -> str:
    """The kind of a modality, the longest that its name begins with: `image_left` → `image`.

    Of an unknown kind it is what stands before the first underscore.
    """
    words = modality.split("_")
    beginnings = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((name for name in beginnings if name in READERS), words[0])


__all__ = ["READERS", "Cell", "Field", "Reader", "kind_of"]
