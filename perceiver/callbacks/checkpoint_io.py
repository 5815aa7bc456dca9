"""How checkpoints come to the disk."""

from __future__ import annotations

import io
from typing import Any

import torch
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pytorch_lightning.plugins import TorchCheckpointIO

from perceiver.files import replacing


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's, except that a local checkpoint is whole or is the one before.

    Lightning writes to the folder for temporary files, and where that is another file system the
    checkpoint is copied over the one before: a kill in the meantime loses both. Here it is written
    beside that one and takes its name when it is on the disk. Checkpoints at a URL are Lightning's.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: it cannot be written; what was there before is as it was.
            TypeError: for storage options, as Lightning does.
        """
        files, place = url_to_fs(str(path))
        if storage_options is not None or not isinstance(files, LocalFileSystem):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()  # torch hides why a write of its own fails
        torch.save(checkpoint, buffer)
        with replacing(place) as file:
            file.write(buffer.getbuffer())
