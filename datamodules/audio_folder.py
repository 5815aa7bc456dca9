"""Recordings in folders named after their class."""

from __future__ import annotations

from datamodules.folder import ClassFolderDataModule


class AudioFolderDataModule(ClassFolderDataModule):
    """Classification of recordings; see `ClassFolderDataModule`."""

    offers = ("audio",)
