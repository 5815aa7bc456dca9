"""Pictures in folders named after their class."""

from __future__ import annotations

from datamodules.layouts.folder import ClassFolderDataModule


class ImageFolderDataModule(ClassFolderDataModule):
    """Classification of pictures; see `ClassFolderDataModule`."""

    available_modalities = ("image",)
