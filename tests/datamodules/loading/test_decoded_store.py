"""DecodedStore: what was written comes back, whoever opens the file."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch

from datamodules.loading.decoded_store import DecodedStore, DecodedStoreWriter


def write(path, *parts):
    writer = DecodedStoreWriter(path)
    for part in parts:
        writer.put(part)
    writer.close()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("shape", [(), (3, 5)])
def test_tensors_come_back_as_they_were_and_so_does_what_is_missing(tmp_path, dtype, shape):
    tensors = [None, None, *(torch.randint(0, 99, (n + 1, *shape)).to(dtype) for n in range(7))]
    tensors[5] = None
    path = tmp_path / "a.arrow"
    write(path, tensors[:2], tensors[2:5], [], tensors[5:6], tensors[6:])
    for store in (DecodedStore(path), pickle.loads(pickle.dumps(DecodedStore(path)))):
        assert store.held.tolist() == [tensor is not None for tensor in tensors]
        assert store.sizes.tolist() == [0 if t is None else t.numel() for t in tensors]
        for found, expected in zip(store.get(range(len(tensors))), tensors, strict=True):
            assert (found is None) == (expected is None)
            assert found is None or (found.dtype == dtype and torch.equal(found, expected))


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_at_all_can_be_kept_too(tmp_path, count):
    write(tmp_path / "a.arrow", [None] * count)
    assert DecodedStore(tmp_path / "a.arrow").get(range(count)) == [None] * count


def test_the_file_is_one_that_arrow_reads(tmp_path):
    write(tmp_path / "a.arrow", [torch.arange(6.0).reshape(2, 3), None])
    table = pa.ipc.open_file(str(tmp_path / "a.arrow")).read_all().to_pydict()
    assert table["values"] == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], None]
    assert table["shape"] == [[2, 3], [0, 0]]


def test_what_is_written_to_a_tensor_stays_in_this_process(tmp_path):
    write(tmp_path / "a.arrow", [torch.zeros(5)])
    DecodedStore(tmp_path / "a.arrow").get([0])[0].fill_(7)
    assert not np.any(DecodedStore(tmp_path / "a.arrow").get([0])[0].numpy())
