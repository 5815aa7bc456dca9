"""The 1,797 handwritten digits inside scikit-learn: their splits, and damage done to them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from sklearn.datasets import load_digits

from datamodules.core.splitting import hold_out
from datamodules.loading.seeding import check_range, generator
from datamodules.readers.image import ImageReader

DIGIT_NAMES = list("0123456789")
SCAN_SIZE = (8, 8)


@dataclass(frozen=True)
class Scans:
    """Handwritten digits of one split.

    Args:
        pixels: (n, 8, 8) float32, background -1, ink up to 1.
        targets: (n,) int64, the digits.
        numbers: (n,) int64, each scan's place in the whole set.
    """

    pixels: np.ndarray
    targets: np.ndarray
    numbers: np.ndarray


def load_scans(*, val_share: float, test_share: float, split_seed: int) -> dict[str, Scans]:
    """The 1,797 scans, split so that all digits are equally frequent in every part.

    Args:
        val_share: part of all scans for validation.
        test_share: part of all scans for the test.
        split_seed: of the choice.
    """
    if not (val_share > 0 < test_share and val_share + test_share < 1):
        raise ValueError(
            f"data.val_share={val_share} and data.test_share={test_share} must be positive and "
            "leave a part for training."
        )
    pixels, targets = load_digits(return_X_y=True)
    pixels = (pixels.reshape(-1, *SCAN_SIZE) / 8 - 1).astype(np.float32)
    rng = generator(split_seed)
    test = hold_out(targets.tolist(), test_share, rng=rng)
    rest = np.flatnonzero(~test)
    is_val = hold_out(targets[rest].tolist(), val_share / (1 - test_share), rng=rng)
    parts = {"train": rest[~is_val], "val": rest[is_val], "test": np.flatnonzero(test)}
    return {name: Scans(pixels[part], targets[part], part) for name, part in parts.items()}


def check_scan_options(options: ImageReader) -> None:
    """Raises ValueError if `data.image` says other than what the scans are."""
    if (options.channels, options.size) != (1, SCAN_SIZE):
        raise ValueError(
            f"The scans have 1 channel and {list(SCAN_SIZE)} pixels, data.image says "
            f"{options.channels} and {list(options.size)}: "
            "set data.image.channels=1 data.image.size=[8,8]."
        )


@dataclass(frozen=True)
class ScanDamage:
    """What happens to a scan; every pair is the range of a uniform draw.

    Args:
        noise: standard deviation of Gaussian noise, on pixels in [-1, 1].
        patch: side of a square that is wiped to background, in pixels, both ends included.
    """

    noise: tuple[float, float] = (0.1, 0.7)
    patch: tuple[int, int] = (2, 3)

    def __post_init__(self) -> None:
        check_range("data.degrade.image.noise", self.noise, low=0, high=inf)
        check_range("data.degrade.image.patch", self.patch, low=0, high=min(SCAN_SIZE))

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pixels = pixels + rng.normal(scale=rng.uniform(*self.noise), size=pixels.shape)
        side = rng.integers(self.patch[0], self.patch[1] + 1)
        top, left = (rng.integers(extent - side + 1) for extent in pixels.shape)
        pixels[top : top + side, left : left + side] = -1
        return pixels.clip(-1, 1).astype(np.float32)
