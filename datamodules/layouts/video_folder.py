"""Films in folders named after their class, seen and heard."""

from __future__ import annotations

from datamodules.layouts.folder import ClassFolderDataModule


class VideoFolderDataModule(ClassFolderDataModule):
    """Classification of films by their frames, their sound, or both; see `ClassFolderDataModule`.

    A film without sound lacks the audio modality.
    """

    available_modalities = ("video", "audio")
