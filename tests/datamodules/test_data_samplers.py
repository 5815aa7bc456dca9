"""EpochSampler: who sees what, when."""

import pytest

from datamodules.samplers import EpochSampler


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


@pytest.mark.parametrize("num_examples", [2, 17, 23])
def test_training_gives_all_processes_equally_many_and_leaves_no_example_out(num_examples):
    samplers = [
        EpochSampler(num_examples, training=True, rank=rank, world_size=5) for rank in range(5)
    ]
    shares = [indices(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])} == {-(-num_examples // 5)}
    assert set().union(*shares) == set(range(num_examples))


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
