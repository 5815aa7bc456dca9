"""Pictures in folders named after their class."""

from __future__ import annotations

from datamodules.folder import ClassFolderDataModule


class ImageFolderDataModule(ClassFolderDataModule):
    """Classification of pictures; see `ClassFolderDataModule`."""

    offers = ("image",)
