"""Pixels, patches and the places of convolutions as byte arrays."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perceiver.adapters import ConvStagesAdapter, ConvStemAdapter, PatchAdapter, PixelAdapter
from perceiver.positions import FourierPositions, LearnedPositions

fourier = partial(FourierPositions, num_bands=2)


def test_pixels_are_tokens_row_by_row():
    image = torch.randn(2, 3, 5, 7)
    segment = PixelAdapter(channels=3, size=(5, 7), position=None)(image)
    tokens = [image[:, :, row, column] for row in range(5) for column in range(7)]
    assert_close(segment.dense(), torch.stack(tokens, 1), rtol=0, atol=0)
    assert segment.shape == (5, 7)


def test_each_pixel_carries_the_code_of_its_own_row_and_column():
    adapter = PixelAdapter(channels=1, size=(3, 5), position=fourier)
    tokens = adapter(torch.zeros(1, 1, 3, 5)).dense()[0]
    rows, columns = FourierPositions(shape=(3, 5), num_bands=2)((3, 5))
    expected = [
        torch.cat([torch.zeros(1), rows[r], columns[c]]) for r in range(3) for c in range(5)
    ]
    assert_close(tokens, torch.stack(expected), rtol=0, atol=0)
    assert adapter.channels == 1 + 2 * 5


def test_an_embedding_of_pixels_is_a_1x1_convolution():
    adapter = PixelAdapter(channels=3, size=(5, 7), position=None, embed_dim=11).double()
    image = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    convolved = F.conv2d(image, adapter.embed.weight[:, :, None, None], adapter.embed.bias)
    assert_close(adapter(image).dense(), convolved.flatten(2).transpose(1, 2))
    assert adapter.channels == 11


def test_patches_are_tokens_row_by_row_of_pixels_channel_by_channel():
    image, side = torch.randn(2, 3, 4, 6), 2
    adapter = PatchAdapter(channels=3, size=(4, 6), patch_size=side, position=None)
    segment = adapter(image)
    tokens = []
    for row in range(0, 4, side):
        for column in range(0, 6, side):
            pixels = [
                image[:, channel, row + y, column + x]
                for channel in range(3)
                for y in range(side)
                for x in range(side)
            ]
            tokens.append(torch.stack(pixels, -1))
    assert_close(segment.dense(), torch.stack(tokens, 1), rtol=0, atol=0)
    assert segment.shape == (2, 3)
    assert adapter.channels == 12


def test_patches_take_positions_of_the_grid_of_patches():
    position = partial(LearnedPositions, table_dim=5)
    adapter = PatchAdapter(channels=1, size=(9, 15), patch_size=3, position=position, embed_dim=7)
    tokens = adapter(torch.zeros(2, 1, 9, 15)).dense()
    assert tuple(tokens.shape) == (2, 15, 12)
    codes = adapter.position.tables[0].expand(2, -1, -1)
    assert_close(tokens[:, :, 7:], codes, rtol=0, atol=0)


def test_an_embedding_of_patches_is_a_strided_convolution():
    adapter = PatchAdapter(channels=3, size=(4, 6), patch_size=2, position=None, embed_dim=5)
    adapter.double()
    image = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    weight = adapter.embed.weight.unflatten(1, (3, 2, 2))
    convolved = F.conv2d(image, weight, adapter.embed.bias, stride=2)
    assert_close(adapter(image).dense(), convolved.flatten(2).transpose(1, 2))


def test_positions_of_an_image_may_be_added_to_its_content():
    position = partial(LearnedPositions, table_dim=5, add=True)
    adapter = PixelAdapter(channels=1, size=(2, 3), position=position, embed_dim=5).double()
    image = torch.randn(7, 1, 2, 3, dtype=torch.float64)
    content = image.flatten(2).transpose(1, 2) @ adapter.embed.weight.T
    assert adapter.channels == 5
    assert_close(adapter(image).dense(), content + adapter.position.tables[0])


def test_positions_of_another_width_cannot_be_added():
    position = partial(LearnedPositions, table_dim=5, add=True)
    with pytest.raises(ValueError, match="width 5 cannot be added to content of width 3"):
        PixelAdapter(channels=3, size=(2, 3), position=position)


def test_the_stem_turns_224_pixels_into_56_places():
    with torch.device("meta"):
        adapter = ConvStemAdapter(channels=3, size=(224, 224), position=fourier)
        segment = adapter(torch.empty(2, 3, 224, 224))
    assert segment.shape == (56, 56)
    assert tuple(segment.dense().shape) == (2, 3136, 64 + 2 * 5)


@pytest.mark.parametrize("training", [True, False])
def test_the_stem_is_a_convolution_a_batch_norm_a_relu_and_a_max_pool_padded_to_same(training):
    adapter = ConvStemAdapter(channels=3, size=(12, 20), stem_dim=5, position=None).double()
    adapter.train(training)
    image = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    conv, norm = adapter.stem[1], adapter.stem[2]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.uniform_(-0.5, 0.5)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2.0)

    # TensorFlow's "SAME": all in all 7 − 2 = 5 and 3 − 2 = 1, the odd one at the end.
    padded = torch.zeros(2, 3, 17, 25, dtype=torch.float64)
    padded[:, :, 2:14, 2:22] = image
    features = F.conv2d(padded, conv.weight, stride=2)
    if training:
        mean = features.mean((0, 2, 3))
        variance = features.var((0, 2, 3), unbiased=False)
    else:
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    normed = (features - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    rectified = (normed * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    rows, columns = rectified.shape[2] // 2, rectified.shape[3] // 2
    tokens = [
        # Windows of 3 from every second place; the last is cut by the picture's edge.
        rectified[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].amax((2, 3))
        for row in range(rows)
        for column in range(columns)
    ]
    segment = adapter(image)
    assert segment.shape == (rows, columns) == (3, 5)
    assert_close(segment.dense(), torch.stack(tokens, 1))


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (11, 6)])
def test_the_stem_announces_the_grid_that_it_gives(size):
    position = partial(LearnedPositions, table_dim=2)
    adapter = ConvStemAdapter(channels=1, size=size, stem_dim=3, position=position)
    segment = adapter(torch.randn(2, 1, *size))
    assert segment.shape == adapter.position.shape == (size[0] // 4, size[1] // 4)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((28, 28), 7), ((32, 32), 8), ((48, 48), 12), ((64, 64), 8), ((96, 96), 12), ((224, 224), 7)],
)
def test_stages_that_fit_leave_seven_places_a_side_or_more(size, grid):
    with torch.device("meta"):
        adapter = ConvStagesAdapter(channels=3, size=size, position=fourier)
        segment = adapter(torch.empty(2, 3, *size))
    assert segment.shape == adapter.position.shape == (grid, grid)
    strides = [stage[0].stride[0] for stage in adapter.stages]
    assert (strides[0] == 1) == (size[0] < 56)


@pytest.mark.parametrize(("size", "side"), [((8, 8), 2), ((12, 13), 1), ((12, 10), 2)])
def test_the_smallest_pictures_have_no_stages_but_patches(size, side):
    adapter = ConvStagesAdapter(channels=1, size=size, position=None)
    patches = PatchAdapter(channels=1, size=size, patch_size=side, position=None, embed_dim=32)
    patches.load_state_dict(adapter.state_dict())
    image = torch.randn(2, 1, *size)
    assert_close(adapter(image).dense(), patches(image).dense(), rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_a_stage_is_a_convolution_a_batch_norm_and_a_relu(training):
    options = {"dims": [3, 5], "strides": [2, 1], "position": None}
    adapter = ConvStagesAdapter(channels=2, size=(7, 11), **options).double().train(training)
    features = image = torch.randn(2, 2, 7, 11, dtype=torch.float64)
    for stage, stride in zip(adapter.stages, (2, 1), strict=True):
        torch.nn.init.normal_(stage[1].weight)
        mean, variance = stage[1].running_mean.clone(), stage[1].running_var.clone()
        features = F.conv2d(features, stage[0].weight, stride=stride, padding=1)
        weight, bias = stage[1].weight, stage[1].bias
        features = F.batch_norm(features, mean, variance, weight, bias, training=training).relu()
    segment = adapter(image)
    assert segment.shape == (4, 6)
    assert_close(segment.dense(), features.flatten(2).transpose(1, 2))


def test_stages_whose_numbers_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"dims=\[3, 5\] and strides=\[1\]"):
        ConvStagesAdapter(channels=1, size=(8, 8), position=None, dims=[3, 5], strides=[1])


def test_a_stem_for_pictures_that_it_cannot_quarter_is_refused():
    with pytest.raises(ValueError, match="sides of 4 pixels"):
        ConvStemAdapter(channels=1, size=(3, 8), position=None)
    with pytest.raises(ValueError, match=r"sides of 4 pixels, got \[8, 3\]"):
        ConvStemAdapter(channels=1, size=(8, 8), position=None)(torch.randn(2, 1, 8, 3))


@pytest.mark.parametrize(
    "adapter",
    [
        PixelAdapter(channels=3, size=(4, 4), position=None),
        PatchAdapter(channels=3, size=(4, 4), patch_size=2, position=None),
        ConvStemAdapter(channels=3, size=(4, 4), position=None),
        ConvStagesAdapter(channels=3, size=(4, 4), position=None, dims=[2], strides=[1]),
    ],
    ids=["pixels", "patches", "stem", "stages"],
)
def test_wrong_pictures_are_refused(adapter, unchecked):
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\); expected \(batch, 3, height, width\)"):
        adapter(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(3, 4, 4\); expected"):
        adapter(torch.zeros(3, 4, 4))


def test_pictures_of_bytes_are_refused_rather_than_read_as_codes(unchecked):
    adapter = PixelAdapter(channels=1, size=(2, 3), position=fourier)
    with pytest.raises(ValueError, match=r"PixelAdapter needs floating-point values, got .*uint8"):
        adapter(torch.zeros(2, 1, 2, 3, dtype=torch.uint8))
    stem = ConvStemAdapter(channels=1, size=(8, 8), position=None)
    with pytest.raises(ValueError, match=r"ConvStemAdapter needs floating-point .*uint8"):
        stem(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_sizes_that_patches_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"patch_size=3 does not divide the image size \[6, 7\]"):
        PatchAdapter(channels=1, size=(6, 7), patch_size=3, position=None)


def test_what_lacks_to_a_whole_patch_is_zeros():
    adapter = PatchAdapter(channels=1, size=(6, 9), patch_size=3, position=None)
    image = torch.randn(2, 1, 5, 7)
    whole = torch.zeros(2, 1, 6, 9)
    whole[:, :, :5, :7] = image
    segment = adapter(image)
    assert segment.shape == (2, 3)
    assert_close(segment.dense(), adapter(whole).dense(), rtol=0, atol=0)
