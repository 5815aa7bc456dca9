"""Batches that a worker sends arrive as they were."""

import pytest
import torch
from torch.utils.data import DataLoader

from datamodules import sending
from datamodules.collate import Batch
from perceiver.types import SequenceBatch


def made(index):
    """A batch of every kind of tensor, some of them small."""
    generator = torch.Generator().manual_seed(index)
    return Batch(
        inputs={
            "large": torch.rand((3, 7 * 2**14), generator=generator),
            "strided": torch.rand((5, 3), generator=generator).T,
            "half": torch.rand((3, 2), generator=generator).bfloat16(),
            "empty": torch.zeros(0, 11, dtype=torch.int64),
        },
        masks={"strided": torch.rand((3, 5), generator=generator) < 0.5},
        present={"half": torch.tensor([True, False, True])},
        target=torch.randint(2**60, (3,), generator=generator),
        ids=["a", "b", str(index)],
    )


def assert_same(found, expected):
    for part in ("inputs", "masks", "present"):
        assert getattr(found, part).keys() == getattr(expected, part).keys()
        for name, tensor in getattr(expected, part).items():
            other = getattr(found, part)[name]
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)
    assert torch.equal(found.target, expected.target)
    assert found.ids == expected.ids


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return made(index)


def test_a_worker_sends_what_it_made():
    assert made(0).inputs["large"].nbytes > sending._SMALL
    loader = DataLoader(Batches(), batch_size=None, num_workers=1, timeout=60)
    for index, found in enumerate(loader):
        assert_same(found, made(index))
        found.target += 1  # memory of the receiver's own


def sent(batch):
    return sending.ForkingPickler.loads(sending.ForkingPickler.dumps(batch))


def test_small_tensors_travel_in_the_message_and_large_ones_in_shared_memory():
    batch = made(0)
    message = sending.ForkingPickler.dumps(batch)
    assert batch.target.numpy().tobytes() in bytes(message)
    assert not batch.target.is_shared()
    assert batch.inputs["large"].is_shared()
    assert len(message) < sending._SMALL


@pytest.mark.parametrize("target", [None, torch.tensor(3)])
def test_what_is_not_there_stays_so(target):
    batch = Batch(inputs={}, target=target)
    assert sent(batch) == batch
    assert not sent(batch).inputs


def test_sequences_travel_so_too():
    import datamodules.algorithmic  # noqa: F401  registers them

    batch = SequenceBatch(torch.rand(2, 5, 3), torch.ones(2, 5), torch.ones(2, 5) > 0, 7)
    found = sent(batch)
    assert not batch.inputs.is_shared()
    assert torch.equal(found.inputs, batch.inputs)
    assert found.size == 7
