"""EpochSampler: who sees what, when."""

import numpy as np
import pytest
from torch.utils.data import SequentialSampler

from datamodules.loading.samplers import EpochBatches, EpochSampler


def indices(sampler):
    return [index for _, index in sampler]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_visits_every_example_exactly_once_over_all_processes(world_size):
    samplers = [
        EpochSampler(17, training=False, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert sorted(index for s in samplers for index in indices(s)) == list(range(17))
    assert [len(sampler) for sampler in samplers] == [len(indices(s)) for s in samplers]


@pytest.mark.parametrize("bucket_batches", [0, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("num_examples", [5, 17, 23, 30, 31, 32, 37])
def test_training_gives_every_example_to_one_process_in_equally_many_batches(
    num_examples, world_size, bucket_batches
):
    lengths = np.random.default_rng(0).integers(1, 100, num_examples)
    batches = [
        list(batches_of(rank, world_size, num_examples, lengths, bucket_batches))
        for rank in range(world_size)
    ]
    seen = [index for share in batches for batch in share for _, index in batch]
    assert sorted(seen) == list(range(num_examples))
    assert len({len(share) for share in batches}) == 1
    assert all(0 < len(batch) <= 3 + 1 for share in batches for batch in share)
    promised = len(batches_of(0, world_size, num_examples, lengths, bucket_batches))
    assert promised == len(batches[0])


def batches_of(rank, world_size, num_examples=37, lengths=None, bucket_batches=0, **options):
    sampler = EpochSampler(
        num_examples,
        **{"training": True, "rank": rank, "world_size": world_size} | options,
        batch_size=3,
        lengths=lengths,
        bucket_batches=bucket_batches,
    )
    return EpochBatches(sampler, 3)


def test_a_split_smaller_than_the_number_of_processes_is_repeated_in_training():
    shares = [list(batches_of(rank, 5, 2)) for rank in range(5)]
    assert [len(share) for share in shares] == [1] * 5
    assert {index for share in shares for batch in share for _, index in batch} == {0, 1}


def test_a_bucketed_batch_holds_neighbours_in_length_on_all_processes_together():
    lengths = np.random.default_rng(1).permutation(36)  # two windows of three batches of 2 × 3
    ranks = [list(batches_of(rank, 2, 36, lengths, 3)) for rank in range(2)]
    windows = {}
    for pair in zip(*ranks, strict=True):
        here = sorted(int(lengths[index]) for batch in pair for _, index in batch)
        spread = max(here) - min(here)
        assert spread < 22, "six neighbours of eighteen lengths out of 36"
        windows.setdefault(here[0] // 12, []).append(here)
        a, b = (sorted(int(lengths[index]) for _, index in batch) for batch in pair)
        assert max(a[0], b[0]) <= here[1], "each process has its share of the short and long"
        assert min(a[-1], b[-1]) >= here[-2]
    unsorted = [list(batches_of(rank, 2, 36)) for rank in range(2)]
    padding = sum(padded(lengths, batch) for share in ranks for batch in share)
    assert padding < 0.5 * sum(padded(lengths, batch) for share in unsorted for batch in share)


def padded(lengths, batch):
    here = [lengths[index] for _, index in batch]
    return max(here) * len(here) - sum(here)


def test_one_window_over_a_whole_split_sorts_it_and_shuffles_the_batches():
    lengths = np.random.default_rng(2).permutation(30)
    batches = [[int(lengths[i]) for _, i in batch] for batch in batches_of(0, 1, 30, lengths, 100)]
    assert sorted(batches) == [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(10)]
    assert batches != sorted(batches)


def test_buckets_are_drawn_anew_every_epoch_and_the_same_for_a_seed_and_epoch():
    lengths = np.random.default_rng(3).integers(1, 100, 37)

    def epoch(number, seed=0):
        batches = batches_of(0, 2, 37, lengths, 4, seed=seed)
        batches.sampler.set_epoch(number)
        return [[index for _, index in batch] for batch in batches]

    assert epoch(1) == epoch(1)
    contents = [{frozenset(batch) for batch in epoch(e, s)} for e, s in ((0, 0), (1, 0), (0, 1))]
    assert contents[0] != contents[1]
    assert contents[0] != contents[2]


def test_bucketed_evaluation_sorts_windows_of_the_split_and_leaves_them_in_order():
    lengths = np.array([5, 3, 9, 1, 2, 8, 7, 7, 4, 6, 0, 1, 3])
    batches = list(batches_of(0, 1, 13, lengths, 2, training=False))
    assert [[index for _, index in batch] for batch in batches] == [
        [3, 4, 1],
        [0, 5, 2],
        [10, 11, 8],
        [9, 6, 7],
        [12],
    ]


def test_batches_to_leave_out_are_those_at_the_beginning_of_one_epoch():
    batches = batches_of(1, 2)
    everything = list(batches)
    batches.start = 4
    assert list(batches) == everything[4:]
    assert list(batches) == everything
    assert len(batches) == len(everything)


def test_a_plain_sampler_is_cut_into_batches_as_it_is():
    assert list(EpochBatches(SequentialSampler(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_training_on_one_process_repeats_nothing():
    assert sorted(indices(EpochSampler(17, training=True))) == list(range(17))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochSampler(17, training=True, seed=seed)
        sampler.set_epoch(epoch)
        return indices(sampler)

    assert order(3, 2) == order(3, 2)
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len(set(map(tuple, orders))) == len(orders), "two (seed, epoch) share an order"


def test_the_epoch_travels_with_the_index():
    sampler = EpochSampler(5, training=True)
    sampler.set_epoch(7)
    assert {epoch for epoch, _ in sampler} == {7}


def test_evaluation_with_fewer_examples_than_processes_is_refused():
    with pytest.raises(ValueError, match=r"2 examples cannot be shared by 3 processes.*devices"):
        EpochSampler(2, training=False, rank=0, world_size=3)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="split is empty"):
        EpochSampler(0, training=True)


CLASSES = np.array([0] * 31 + [1] * 5 + [2])


@pytest.mark.parametrize("world_size", [1, 3])
def test_balanced_training_has_as_many_of_each_class_and_spreads_them_over_its_members(world_size):
    shares = [
        [pair for batch in batches_of(rank, world_size, classes=CLASSES) for pair in batch]
        for rank in range(world_size)
    ]
    pairs = [pair for share in shares for pair in share]
    assert len(pairs) == len(set(pairs)) == 37, "what comes again is drawn anew"
    times = np.bincount([index for _, index in pairs], minlength=37)
    counts = [int(times[name == CLASSES].sum()) for name in range(3)]
    assert sorted(counts) == [12, 12, 13]
    for name in range(3):
        assert np.ptp(times[name == CLASSES]) <= 1


def test_a_balanced_epoch_can_be_taken_up_in_the_middle_and_differs_from_the_next():
    def batches(epoch, start=0):
        made = batches_of(1, 2, classes=CLASSES)
        made.sampler.set_epoch(epoch)
        made.start = start
        return list(made)

    assert batches(2, start=4) == batches(2)[4:]
    assert batches(2) != batches(3)


def test_evaluation_is_never_balanced():
    assert indices(EpochSampler(37, training=False)) == list(range(37))
