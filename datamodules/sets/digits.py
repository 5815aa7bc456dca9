"""The default job: a digit as a handwritten scan, as a dial tone and as its name in writing.

Needs no files. The scans are real (1,797 of them, 8 × 8, inside scikit-learn); tone and name are
made to a standard around them. Each modality is degraded so far that it does not suffice alone;
the degradations are independent of one another, so that together they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import SPLITS, Source
from datamodules.loading.seeding import check_range
from datamodules.readers.audio import AudioReader
from datamodules.readers.text import TextReader
from datamodules.sets.sklearn_digits import (
    DIGIT_NAMES,
    ScanDamage,
    Scans,
    check_scan_options,
    load_scans,
)
from datamodules.sets.synthesis.dtmf import ToneLine, dial_tone
from datamodules.sets.synthesis.number_names import ALPHABETS, NAMES, misspell


@dataclass(frozen=True)
class Typing:
    """How a name is typed.

    Args:
        rate: range of a uniform draw: chance of a slip, a character.
        languages: which to draw from; empty = all of `number_names.NAMES`.
    """

    rate: tuple[float, float] = (0.1, 0.7)
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("data.degrade.text.rate", self.rate, low=0, high=1)
        if unknown := set(self.languages) - set(NAMES):
            raise ValueError(
                f"data.degrade.text.languages names {sorted(unknown)}, choose from {list(NAMES)}."
            )
        object.__setattr__(self, "languages", tuple(self.languages) or tuple(NAMES))

    def __call__(self, digit: int, rng: np.random.Generator) -> str:
        language = self.languages[rng.integers(len(self.languages))]
        rate, alphabet = rng.uniform(*self.rate), ALPHABETS[language]
        return misspell(NAMES[language][digit], rate=rate, alphabet=alphabet, rng=rng)


@dataclass(frozen=True)
class Degradation:
    """How far each modality is degraded."""

    image: ScanDamage = field(default_factory=ScanDamage)
    audio: ToneLine = field(default_factory=ToneLine)
    text: Typing = field(default_factory=Typing)


class DigitSource(Source):
    """Scan, tone and name of one split's digits, degraded as the generator given to `read` says."""

    def __init__(
        self,
        scans: Scans,
        *,
        modalities: list[str],
        degrade: Degradation,
        audio: AudioReader,
        text: TextReader,
    ) -> None:
        ids = [f"scan {number}" for number in scans.numbers]
        super().__init__(targets=scans.targets, ids=ids)
        self.scans = scans
        self.modalities = modalities
        self.degrade = degrade
        self.audio = audio
        self.text = text

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
        # A generator each: which modalities are read never changes what the others are.
        streams = dict(zip(DigitsDataModule.available_modalities, rng.spawn(3), strict=True))
        make = {"image": self._image, "audio": self._audio, "text": self._text}
        return {name: make[name](index, streams[name]) for name in self.modalities}

    def _image(self, index: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(self.degrade.image(self.scans.pixels[index], rng))[None]

    def _audio(self, index: int, rng: np.random.Generator) -> Tensor:
        clip = dial_tone(
            int(self.scans.targets[index]),
            line=self.degrade.audio,
            sample_rate=self.audio.sample_rate,
            num_samples=self.audio.max_samples,
            rng=rng,
        )
        return torch.from_numpy(clip)

    def _text(self, index: int, rng: np.random.Generator) -> Tensor | None:
        return self.text.encode(self.degrade.text(int(self.scans.targets[index]), rng))


class DigitsDataModule(MultimodalDataModule):
    """Digits in three modalities, made in memory.

    Args:
        val_share: part of the scans for validation.
        test_share: part of the scans for the test.
        degrade: modality → options of `ScanDamage`, `ToneLine`, `Typing`.
        **common: options of `MultimodalDataModule`, which refuses unknown ones.
    """

    available_modalities = ("image", "audio", "text")

    def __init__(
        self,
        *,
        val_share: float = 0.1,
        test_share: float = 0.2,
        degrade: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.val_share = val_share
        self.test_share = test_share
        self.degrade = _degradation(degrade or {})
        check_scan_options(self.readers["image"])

    def build(self) -> tuple[list[str], dict[str, Source]]:
        scans = load_scans(
            val_share=self.val_share, test_share=self.test_share, split_seed=self.split_seed
        )
        return DIGIT_NAMES, {
            split: DigitSource(
                scans[split],
                modalities=self.modalities,
                degrade=self.degrade,
                audio=self.readers["audio"],
                text=self.readers["text"],
            )
            for split in SPLITS
        }


def _degradation(options: Mapping[str, Mapping[str, Any]]) -> Degradation:
    kinds = {kind.name: kind.default_factory for kind in fields(Degradation)}
    if unknown := set(options) - set(kinds):
        raise ValueError(f"data.degrade names {sorted(unknown)}, choose from {list(kinds)}.")
    return Degradation(**{name: kinds[name](**values) for name, values in options.items()})
