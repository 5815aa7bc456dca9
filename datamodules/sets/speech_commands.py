"""Speech Commands (Warden 2018): one-second clips of single English words at 16 kHz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.core.columns import Files
from datamodules.core.rows import Rows
from datamodules.layouts.folder import class_folders, walk
from datamodules.sets.download import PublishedDataModule, download, first_folder, unpack

_SITE = "https://download.tensorflow.org/data"
_ARCHIVE = f"{_SITE}/speech_commands_v0.02.tar.gz"
_CHECKSUM = "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
_FOLDER = "SpeechCommands/speech_commands_v0.02"  # where torchaudio keeps it too
_LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}


class SpeechCommandsDataModule(PublishedDataModule):
    """105,829 clips of 35 words, in the splits that its own lists say.

    A speaker is in one split alone. The folder of background noise is left out.

    Args:
        outside: allow symbolic links that lead out of the root.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("audio",)
    name, title = "speech_commands", "Speech Commands"

    def __init__(self, *, outside: bool = False, **published: Any) -> None:
        super().__init__(**published)
        self.outside = outside

    def found(self) -> Path | None:
        places = (".", "speech_commands_v0.02", _FOLDER)
        return first_folder(self.root, places, holding=_LISTS["test"])

    def fetch(self) -> None:
        archive = download(_ARCHIVE, self.root / "speech_commands.tar.gz", checksum=_CHECKSUM)
        unpack(archive, self.root / _FOLDER)
        archive.unlink()

    def rows(self) -> Rows:
        """Raises FileNotFoundError without the clips or the lists."""
        folder = self.folder()
        listed = {
            name: split
            for split, file in _LISTS.items()
            for name in (folder / file).read_text(encoding="utf-8").split()
        }
        words = [name for name in class_folders(folder) if not name.startswith("_")]
        clips = [f"{word}/{name}" for word in words for name in walk(folder / word, {".wav"})]
        return Rows(
            {"audio": Files(clips, root=folder, inside=self.root, outside=self.outside)},
            labels=[clip.partition("/")[0] for clip in clips],
            ids=clips,
            splits=[listed.get(clip, "train") for clip in clips],
            classes=words,
        )
