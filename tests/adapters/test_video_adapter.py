"""Videos as byte arrays: blocks, their places in space and time, and clips of several lengths."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perceiver.adapters import VideoAdapter
from perceiver.positions import FourierPositions, fourier_features

fourier = partial(FourierPositions, num_bands=2, absolute=True)
SMALL = {"channels": 3, "num_frames": 5, "size": (4, 6), "patch_size": 2, "frames_per_patch": 2}


def make(position=None, **other):
    return VideoAdapter(**(SMALL | other), position=position)


def test_blocks_are_tokens_in_the_order_of_time_rows_and_columns():
    video = torch.randn(2, 4, 3, 4, 6)
    segment = make()(video)
    tokens = []
    for time in range(0, 4, 2):
        for row in range(0, 4, 2):
            for column in range(0, 6, 2):
                values = [
                    video[:, time + t, channel, row + y, column + x]
                    for channel in range(3)
                    for t in range(2)
                    for y in range(2)
                    for x in range(2)
                ]
                tokens.append(torch.stack(values, -1))
    assert_close(segment.dense(), torch.stack(tokens, 1), rtol=0, atol=0)
    assert segment.shape == (2, 2, 3)
    assert make().channels == 24


def test_blocks_of_one_are_pixels():
    video = torch.randn(2, 5, 3, 4, 6)
    tokens = make(patch_size=1, frames_per_patch=1)(video).dense()
    pixels = [
        video[:, t, :, row, column] for t in range(5) for row in range(4) for column in range(6)
    ]
    assert_close(tokens, torch.stack(pixels, 1), rtol=0, atol=0)


def test_an_embedding_of_blocks_is_a_strided_convolution_in_space_and_time():
    adapter = make(embed_dim=7).double()
    video = torch.randn(2, 4, 3, 4, 6, dtype=torch.float64)
    weight = adapter.embed.weight.unflatten(1, (3, 2, 2, 2))
    convolved = F.conv3d(video.transpose(1, 2), weight, adapter.embed.bias, stride=2)
    assert_close(adapter(video).dense(), convolved.flatten(2).transpose(1, 2))


def test_each_block_carries_the_codes_of_its_own_time_row_and_column():
    adapter = make(fourier, num_frames=6)
    segment = adapter(torch.zeros(1, 6, 3, 4, 6))
    assert [tuple(code.shape) for code in segment.axes] == [(3, 5), (2, 5), (3, 5)]
    position = segment.dense()[0, :, 24:]
    places = {2: [-1.0, 1.0], 3: [-1.0, 0.0, 1.0]}
    expected = [
        torch.cat(
            [
                fourier_features(torch.tensor([place]), num_bands=2, max_resolution=[size])
                for place, size in [(time, 3), (row, 2), (column, 3)]
            ]
        )
        for time in places[3]
        for row in places[2]
        for column in places[3]
    ]
    assert_close(position, torch.stack(expected))


def test_a_last_block_that_is_not_full_ends_with_zeros():
    video = torch.randn(1, 5, 3, 4, 6)
    full = torch.cat([video, torch.zeros(1, 1, 3, 4, 6)], 1)
    tokens = make(fourier)(video).dense()
    assert tuple(tokens.shape) == (1, 3 * 2 * 3, 24 + 15)
    assert_close(tokens, make(fourier)(full).dense(), rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_clip_padded_to_a_longer_one_keeps_its_tokens(length):
    adapter = make(fourier, embed_dim=7)
    video = torch.randn(2, 5, 3, 4, 6)  # padding that is not zero must not matter either
    mask = torch.tensor([[True] * 5, [True] * length + [False] * (5 - length)])
    both = adapter(video, mask)
    alone = adapter(video[1:, :length])
    count = alone.content.shape[1]
    assert_close(both.dense()[1:, :count], alone.dense())
    assert both.mask[1].tolist() == [True] * count + [False] * (18 - count)
    assert both.mask[0].all()


def test_wrong_videos_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"\(2, 5, 1, 4, 6\); expected \(batch, frames, 3, height"):
        make()(torch.zeros(2, 5, 1, 4, 6))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 6\); expected"):
        make()(torch.zeros(2, 3, 4, 6))
    with pytest.raises(ValueError, match=r"patch_size=2 does not divide the frame size \[4, 5\]"):
        make()(torch.zeros(2, 5, 3, 4, 5))
    with pytest.raises(ValueError, match="needs floating-point values"):
        make()(torch.zeros(2, 5, 3, 4, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"expected bool of shape \(2, 5\)"):
        make()(torch.zeros(2, 5, 3, 4, 6), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"patch_size=4 does not divide the frame size \[4, 6\]"):
        make(patch_size=4)
