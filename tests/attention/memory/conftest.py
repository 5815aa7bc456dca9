"""What the memory tests share: float64 draws and weightings."""

import pytest
import torch


@pytest.fixture
def draw():
    """draw(3, 5) → standard normal float64; the same in every test."""
    source = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=source)


@pytest.fixture
def exact():
    """exact(ours, reference): equal up to the rounding of float64."""
    return lambda ours, wanted: torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
