import jaxtyping
import pytest
import torch


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture
def unchecked(monkeypatch):
    """Shape checks off, as for users: the library's own messages must come."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
