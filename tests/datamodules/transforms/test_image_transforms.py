"""Transforms of images, and what the library's do to ours."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.testing import assert_close

from datamodules.transforms.apply import apply, finish
from datamodules.transforms.image import CentreCrop, Normalise


def test_a_centre_crop_of_the_right_size_changes_nothing():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    assert CentreCrop(size=[5, 7], scale=1.2)(image) is image


def test_a_centre_crop_scales_the_side_that_is_short_and_keeps_the_middle():
    image = torch.zeros(1, 40, 120, dtype=torch.uint8)
    image[..., 40:80] = 200  # the middle third, a square
    cropped = CentreCrop(size=[20, 20])(image)
    assert cropped.shape == (1, 20, 20)
    assert cropped[..., 1:-1].float().mean().item() == pytest.approx(200, abs=1)
    # At twice the scale the crop is a quarter of the square.
    image[..., 50:70], image[..., :10, :] = 100, 0
    closer = CentreCrop(size=[20, 20], scale=2.0)(image)
    assert closer[..., 1:-1].unique().tolist() == [100]


def test_a_centre_crop_of_a_film_crops_every_frame_alike():
    film = torch.randint(0, 256, (5, 3, 30, 44), dtype=torch.uint8)
    crop = CentreCrop(size=[16, 16])
    assert torch.equal(crop(film), torch.stack([crop(frame) for frame in film]))


def test_normalising_is_arithmetic_on_bytes():
    image = torch.tensor([[[0]], [[255]], [[51]]], dtype=torch.uint8)
    normal = Normalise(mean=[0.5, 0.5, 0.1], std=[0.5, 0.25, 0.1])(image)
    assert_close(normal.flatten(), torch.tensor([-1.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="bytes of 3 channels"):
        Normalise(mean=[0.5] * 3, std=[0.5] * 3)(normal)


def test_a_step_that_fails_is_named_with_the_example():
    image = torch.zeros(2, 3)
    with pytest.raises(
        ValueError,
        match=r"^data\.augment\.image\[1\] \(Normalise\) cannot handle "
        r"example a\.png, of shape \(2, 3\) and type float32: expected bytes",
    ):
        apply(
            [torch.nn.Identity(), Normalise(mean=[0.5], std=[0.5])],
            image,
            option="data.augment.image",
            id="a.png",
        )
    with pytest.raises(ValueError, match="gives tuple for example x"):
        apply([lambda value: (value, 0)], image, option="data.augment.image", id="x")


def test_pixels_that_are_still_bytes_stay_so_for_the_collator_to_scale():
    image = torch.tensor([0, 255], dtype=torch.uint8)
    same = {"reader": None, "option": "o", "ids": ["i", "j"]}
    assert finish([image, None], [], **same) == [image, None]
    found, nothing = finish([image, None], [lambda x: x.float()], **same)
    assert found.tolist() == [0.0, 255.0]
    assert nothing is None


def test_a_random_crop_of_a_film_is_one_part_of_all_frames():
    steps = instantiate(
        OmegaConf.create(
            {
                "data": {"video": {"size": [8, 8]}},
                "s": OmegaConf.load("conf/augment/video/crop_flip.yaml").video,
            }
        ).s
    )
    torch.manual_seed(0)
    still = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    film = still.expand(5, -1, -1, -1)
    changed = apply(steps, film, option="data.augment.video", id="x")
    assert changed.shape == (5, 3, 8, 8)
    assert (changed == changed[:1]).all()
