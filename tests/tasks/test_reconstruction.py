"""Reconstruction: what is asked is the input itself, element by element."""

import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from perceiver.tasks import Reconstruction
from perceiver.types import Batch
from runner.recipe import provisional


def test_the_target_of_a_pixel_is_its_colours():
    picture = torch.randn(2, 3, 5, 7)
    objective = Reconstruction(out_dim=3)
    made = objective.prepare(Batch(inputs={"image": picture}))
    target = made.targets["whole_image"]
    assert target.shape == (2, 35, 3)
    for row, column in ((0, 0), (2, 3), (4, 6)):
        assert_close(target[1, 7 * row + column], picture[1, :, row, column])
    assert not made.known
    outputs = torch.randn(2, 35, 3)
    assert_close(objective.losses(outputs, made), (outputs - target).square().mean((1, 2)))


def test_padding_and_absent_pictures_are_not_asked_for():
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    mask[0, 1] = False
    batch = Batch(
        inputs={"image": torch.randn(3, 1, 2, 2)},
        masks={"image": mask},
        present={"image": torch.tensor([True, True, False])},
    )
    objective = Reconstruction(out_dim=1)
    made = objective.prepare(batch)
    known = made.known["whole_image"]
    assert known.tolist() == [[True, True, False, False], [True] * 4, [False] * 4]
    outputs = torch.randn(3, 4, 1, requires_grad=True)
    errors = (outputs - made.targets["whole_image"]).square()[..., 0]
    assert_close(objective.losses(outputs, made)[0], errors[0, :2].mean())
    objective.loss(outputs, made).backward()
    assert (outputs.grad[..., 0] != 0).tolist() == known.tolist()


@pytest.mark.parametrize(("axis", "shape"), [(None, (2, 11)), (-1, (2, 11, 1))])
def test_sound_and_arrays_are_asked_for_in_the_same_way(axis, shape):
    values = torch.randn(shape)
    objective = Reconstruction(out_dim=1, modality="audio", axis=axis)
    made = objective.prepare(Batch(inputs={"audio": values}))
    assert_close(made.targets["whole_audio"], values.reshape(2, 11, 1))


def test_what_is_no_numbers_is_refused():
    with pytest.raises(ValueError, match=r"reconstructs image.* not of text"):
        Reconstruction(out_dim=1).prepare(Batch(inputs={"text": torch.zeros(1, 2).long()}))
    with pytest.raises(ValueError, match=r"reconstructs text.* of torch.int64"):
        Reconstruction(out_dim=1, modality="text").prepare(
            Batch(inputs={"text": torch.zeros(1, 2).long()})
        )


def test_steps_on_pictures_lower_the_error_of_their_pixels(compose_run):
    torch.manual_seed(0)
    config = compose_run(
        "task=reconstruction", "modality@model.adapters=[image]", "optimizer.lr=1e-3"
    )
    task = instantiate(provisional(config).task, _convert_="all")
    task.log = lambda *args, **options: None
    optimizer = task.optimizer(task.model.parameters())
    shades = torch.linspace(-1, 1, 8).expand(3, 1, 8, 8)
    batch = Batch({"image": torch.stack([shades[0], shades[1].mT, -shades[2]])})
    losses = []
    for step in range(40):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert task.eval().predict_step(batch, 0).shape == (3, 64, 1)
