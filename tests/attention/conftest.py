"""What the tests of attention share: seeded random tensors and masks with an empty row."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def keep() -> torch.Tensor:
    """(2, 3, 5, 7) bool; row 2 of example 0 keeps nothing, in any head."""
    mask = torch.rand(2, 3, 5, 7) > 0.4
    mask[0, :, 2] = False
    mask[1, :, :, 0] = True
    return mask


@pytest.fixture
def scores() -> torch.Tensor:
    """(2, 3, 5, 7) float64 scores."""
    return 2 * torch.randn(2, 3, 5, 7, dtype=torch.float64)
