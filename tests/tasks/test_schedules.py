"""Learning-rate schedules against their closed forms, step by step."""

import math

import pytest
import torch

from perceiver.tasks.schedules import constant, cosine, flat_cosine, step


def rates(schedule, total: int, **options) -> list[float]:
    """The rate of every step of a run, for a full rate of 3."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    scheduler = schedule(optimizer, total, **options)
    used = []
    for _ in range(total):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def test_a_constant_rate_is_constant():
    assert rates(constant, 7) == [3.0] * 7


@pytest.mark.parametrize("schedule", [constant, cosine, flat_cosine])
def test_warm_up_rises_linearly_and_reaches_the_full_rate_at_its_end(schedule):
    used = rates(schedule, 20, warmup=0.2)
    assert used[:5] == pytest.approx([0.6, 1.2, 1.8, 2.4, 3.0])


def test_a_cosine_falls_from_the_full_rate():
    assert rates(cosine, 11) == pytest.approx([3 * half_cosine(i / 11) for i in range(11)])


def test_a_cosine_starts_after_the_warm_up_and_ends_at_its_final_share():
    used = rates(cosine, 50, warmup=0.1, final=0.2)
    expected = [3 * (0.2 + 0.8 * half_cosine((i - 5) / 45)) for i in range(5, 50)]
    assert used[5:] == pytest.approx(expected)


def test_a_flat_cosine_is_flat_for_its_share_and_falls_over_the_rest():
    used = rates(flat_cosine, 40, flat=0.25)
    assert used[:11] == [3.0] * 11
    assert used[10:] == pytest.approx([3 * half_cosine((i - 10) / 30) for i in range(10, 40)])


def test_shares_are_of_what_follows_the_warm_up():
    used = rates(flat_cosine, 50, warmup=0.2, flat=0.5)  # 10 up, 20 flat, 20 down
    assert used[10:31] == [3.0] * 21
    assert used[40] == pytest.approx(3 * half_cosine(0.5))
    used = rates(step, 50, warmup=0.2, milestones=[0.5], gamma=0.5)
    assert used[10:] == [3.0] * 20 + [1.5] * 20


def test_the_papers_milestones_divide_by_ten_at_epochs_84_102_and_114_of_120():
    for steps_an_epoch in (1, 7):
        used = rates(step, 120 * steps_an_epoch, milestones=[0.7, 0.85, 0.95])
        expected = [3.0] * 84 + [0.3] * 18 + [0.03] * 12 + [0.003] * 6
        assert used[::steps_an_epoch] == pytest.approx(expected)
        assert used[84 * steps_an_epoch - 1] == 3.0


def test_rates_stay_at_the_end_after_the_run():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    scheduler = cosine(optimizer, 5, final=0.1)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (constant, {"warmup": 1.0}, "warmup=1.0"),
        (cosine, {"warmup": -0.1}, "warmup=-0.1"),
        (cosine, {"warmup": 500.0}, "warmup=500.0 is a share"),
        (flat_cosine, {"flat": 1.0}, "flat=1.0 is a share"),
        (flat_cosine, {"flat": -0.1}, "flat=-0.1"),
        (step, {"milestones": [0.5, 84.0]}, "epoch 84 of 120 is 0.7"),
        (step, {"milestones": [0.0]}, "above 0"),
    ],
)
def test_what_is_no_share_is_refused(schedule, options, message):
    with pytest.raises(ValueError, match=message):
        rates(schedule, 7, **options)
