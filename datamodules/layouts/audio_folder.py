"""Recordings in folders named after their class."""

from __future__ import annotations

from datamodules.layouts.folder import ClassFolderDataModule


class AudioFolderDataModule(ClassFolderDataModule):
    """Classification of recordings; see `ClassFolderDataModule`."""

    available_modalities = ("audio",)
