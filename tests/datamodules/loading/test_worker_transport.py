"""Batches that a worker sends arrive as they were, and stay so as long as they are kept."""

import gc
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from select import select

import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler

from datamodules.core.collate import Batch
from datamodules.loading import worker_transport as transport
from datamodules.loading.loader import ResumableLoader
from datamodules.loading.samplers import EpochBatches
from datamodules.sets.sequences.copy import CopyDataModule


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
        targets={"target": torch.randint(2**60, (3,), generator=generator)},
        known={"target": torch.tensor([True, False, True])},
        ids=["a", "b", str(index)],
        part="length_7",
    )


def assert_same(found, expected):
    for part in ("inputs", "masks", "present", "targets", "known"):
        assert getattr(found, part).keys() == getattr(expected, part).keys()
        for name, tensor in getattr(expected, part).items():
            other = getattr(found, part)[name]
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)
    assert (found.ids, found.part) == (expected.ids, expected.part)


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return made(index)


@pytest.fixture
def buffers(monkeypatch):
    """What a loader and its one worker have, both in this process."""
    buffers = transport.SharedBuffers(count=2)
    monkeypatch.setattr(transport, "_sender", transport._Sender(buffers.name, 5, buffers.count))
    return buffers


def large(value, size=7 * 2**16):
    return Batch(inputs={"large": torch.full((size,), float(value))})


def test_kept_batches_stay_as_they_were_while_buffers_are_used_again():
    loader = DataLoader(
        Batches(),
        batch_size=None,
        num_workers=1,
        persistent_workers=True,
        worker_init_fn=transport.SharedBuffers(count=2),
        timeout=60,
    )
    kept = [batch for _ in range(2) for batch in loader]  # more than there are buffers
    row = next(iter(loader)).inputs["large"][1]
    places = set()
    for _ in range(3):
        for index, found in enumerate(loader):
            assert_same(found, made(index))
            places.add(found.inputs["large"].data_ptr())
            found.inputs["large"].zero_()
    for index, found in enumerate(kept):
        assert_same(found, made(index % 3))
    assert torch.equal(row, made(0).inputs["large"][1])
    del kept, row, found
    again = {batch.inputs["large"].data_ptr() for _ in range(3) for batch in loader}
    assert len(again | places) < 9, "buffers are used again"


def train(ready):
    """A process whose two loaders have two workers each, and more batches read than a pipe holds.

    It has `ready`, the end of a pipe to write to, open, and so have its workers.
    """
    os.setsid()
    torch.set_num_threads(1)
    numbers = range(97)
    large = ResumableLoader(
        numbers,
        batch_sampler=EpochBatches(SequentialSampler(numbers), 1),
        collate_fn=lambda _: Batch(inputs={"x": torch.zeros(99_991)}),
        num_workers=2,
    )
    sizes = dict.fromkeys(("train", "val", "test"), (50, 50))
    counts = dict.fromkeys(sizes, 97)
    copy = CopyDataModule(
        input_dim=9, out_dim=8, sizes=sizes, batches=counts, batch_size=31, num_workers=2
    )
    held = [iter(loader) for loader in (large, copy.train_dataloader())]
    for batches in held:
        next(batches)
    time.sleep(0.5)  # workers read ahead, until the pipe is full
    os.write(ready, b"ready")
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="kills as Linux does")
def test_workers_end_with_a_parent_that_is_killed():
    heard, ready = os.pipe()
    parent = multiprocessing.get_context("fork").Process(target=train, args=(ready,))
    parent.start()
    os.close(ready)
    try:
        assert os.read(heard, 99) == b"ready"
        os.kill(parent.pid, signal.SIGKILL)
        assert select([heard], [], [], 4)[0], "some process still has the pipe open"
        assert os.read(heard, 99) == b""
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        os.close(heard)


@pytest.mark.slow
def test_a_worker_that_is_not_forked_has_buffers_too():
    loader = DataLoader(
        Batches(),
        batch_size=None,
        num_workers=1,
        worker_init_fn=transport.SharedBuffers(count=2),
        multiprocessing_context="spawn",
        timeout=120,
    )
    for index, found in enumerate(loader):
        assert_same(found, made(index))


def test_a_buffer_is_used_again_once_nothing_shares_its_memory(buffers):
    first = sent(large(1)).inputs["large"]
    view = first.view(7, -1)[3].detach()
    place, other = first.data_ptr(), sent(large(2)).inputs["large"]
    assert other.data_ptr() != place
    del first, other
    gc.collect()
    third = sent(large(3)).inputs["large"]
    assert third.data_ptr() != place, "a view of it is left"
    assert (view == 1).all()
    del view
    gc.collect()
    assert sent(large(4)).inputs["large"].data_ptr() == place
    assert (third == 3).all()


def test_where_all_buffers_are_in_use_memory_is_sent_as_pytorch_does(buffers):
    kept = [sent(large(n)).inputs["large"] for n in range(5)]
    assert len(buffers.buffers) == 2
    assert [tensor[0].item() for tensor in kept] == [0, 1, 2, 3, 4]
    assert [tensor.is_shared() for tensor in kept] == [False, False, True, True, True]


def test_a_buffer_that_is_too_small_is_replaced(buffers):
    for size in (5 * 2**16, 11 * 2**16, 3 * 2**16):
        assert torch.equal(
            sent(large(size, size)).inputs["large"], large(size, size).inputs["large"]
        )
    assert list(buffers.buffers) == [(5, 0)]
    assert len(buffers.buffers[5, 0]) >= 11 * 2**18


def test_buffers_do_not_grow_without_bounds(buffers, monkeypatch):
    monkeypatch.setattr(transport, "_KEPT", 2**21)
    for value in (5 * 2**16, 11 * 2**16):  # 1.25 MiB and 2.75 MiB
        assert sent(large(value, value)).inputs["large"].numel() == value
    assert sum(map(len, buffers.buffers.values())) < 2**21


def test_buffers_go_with_their_loader():
    buffers = transport.SharedBuffers(count=2)
    name = buffers.name
    del buffers
    assert name not in transport._receiving


def test_a_worker_sends_what_it_made():
    assert made(0).inputs["large"].nbytes > transport._SMALL
    loader = DataLoader(Batches(), batch_size=None, num_workers=1, timeout=60)
    for index, found in enumerate(loader):
        assert_same(found, made(index))
        found.targets["target"] += 1  # memory of the receiver's own


def sent(batch):
    return transport.ForkingPickler.loads(transport.ForkingPickler.dumps(batch))


def test_small_tensors_travel_in_the_message_and_large_ones_in_shared_memory():
    batch = made(0)
    message = transport.ForkingPickler.dumps(batch)
    assert batch.targets["target"].numpy().tobytes() in bytes(message)
    assert not batch.targets["target"].is_shared()
    assert batch.inputs["large"].is_shared()
    assert len(message) < transport._SMALL


@pytest.mark.parametrize("targets", [{}, {"target": torch.tensor(3)}])
def test_what_is_not_there_stays_so(targets):
    batch = Batch(inputs={}, targets=targets)
    assert sent(batch) == batch
    assert sent(batch).targets == targets
    assert not sent(batch).inputs
