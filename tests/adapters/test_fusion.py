"""Segments of several widths become one byte array that tells modalities apart."""

import pytest
import torch
from torch.testing import assert_close

from perceiver.adapters import PaddingFusion, ProjectionFusion
from perceiver.types import Segment

WIDTHS = {"text": 3, "image": 7, "audio": 5}


@pytest.fixture
def segments() -> dict[str, Segment]:
    return {
        "text": Segment(torch.randn(2, 11, 3), mask=torch.rand(2, 11) < 0.5, shape=(11,)),
        "image": Segment(torch.randn(2, 6, 2), axes=(torch.randn(2, 2), torch.randn(3, 3))),
        "audio": Segment(torch.randn(2, 13, 5)),
    }


def test_padding_puts_channels_of_the_modalitys_own_after_its_tokens(segments):
    fusion = PaddingFusion(channels=WIDTHS, min_padding=2)
    array = fusion(segments)
    assert fusion.channels == array.tokens.shape[-1] == 9
    for name, width in WIDTHS.items():
        tokens = array.tokens[:, array.spans[name]]
        assert_close(tokens[..., :width], segments[name].dense(), rtol=0, atol=0)
        learned = fusion.padding[name].expand(*tokens.shape[:2], -1)
        assert_close(tokens[..., width:], learned, rtol=0, atol=0)


def test_the_padding_of_modalities_differs_and_is_learned(segments):
    fusion = PaddingFusion(channels=dict.fromkeys(WIDTHS, 5), min_padding=3)
    values = {tuple(padding.tolist()) for padding in fusion.padding.values()}
    assert len(values) == 3
    fusion = PaddingFusion(channels=WIDTHS, min_padding=2)
    fusion(segments).tokens.sum().backward()
    # Each channel stands in every token of the batch once.
    for name, tokens in (("text", 22), ("image", 12), ("audio", 26)):
        gradient = fusion.padding[name].grad
        assert_close(gradient, torch.full_like(gradient, tokens))


def test_segments_are_sorted_and_keep_their_masks_and_grids(segments):
    for fusion in (
        PaddingFusion(channels=WIDTHS, min_padding=2),
        ProjectionFusion(channels=WIDTHS, dim=4),
    ):
        array = fusion(segments)
        assert list(array.segments) == ["audio", "image", "text"]
        assert array.segments["text"].mask is segments["text"].mask
        assert array.segments["text"].shape == (11,)


def test_position_codes_stay_apart_when_padded(segments):
    fused = PaddingFusion(channels=WIDTHS, min_padding=2)(segments).segments["image"]
    assert fused.axes is segments["image"].axes
    assert fused.content is segments["image"].content


def test_one_modality_without_padding_is_left_as_it_is(segments):
    fusion = PaddingFusion(channels={"image": 7}, min_padding=0)
    assert fusion({"image": segments["image"]}).segments["image"] is segments["image"]
    assert not list(fusion.parameters())


def test_channels_that_a_segment_shares_already_are_kept():
    segment = Segment(torch.randn(2, 3, 4), constant=torch.tensor([7.0]))
    fusion = PaddingFusion(channels={"a": 5}, min_padding=2)
    tokens = fusion({"a": segment}).tokens
    assert tokens.shape[-1] == fusion.channels
    assert (tokens[..., 4] == 7).all()


def test_a_part_of_the_modalities_has_the_same_width(segments):
    fusion = PaddingFusion(channels=WIDTHS, min_padding=2)
    part = fusion({"text": segments["text"]})
    assert_close(part.tokens, fusion(segments).segments["text"].dense(), rtol=0, atol=0)


def test_padding_by_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="min_padding=-1"):
        PaddingFusion(channels=WIDTHS, min_padding=-1)


def test_projection_is_a_linear_layer_and_an_embedding_a_modality(segments):
    fusion = ProjectionFusion(channels=WIDTHS, dim=4).double()
    array = fusion({k: Segment(s.dense().double(), mask=s.mask) for k, s in segments.items()})
    assert fusion.channels == 4
    for name, segment in segments.items():
        layer = fusion.projections[name]
        expected = segment.dense().double() @ layer.weight.T + layer.bias + fusion.embeddings[name]
        assert_close(array.tokens[:, array.spans[name]], expected)


def test_projection_reads_position_codes_too(segments):
    fusion = ProjectionFusion(channels=WIDTHS, dim=4)
    fused = fusion(segments).segments["image"]
    layer = fusion.projections["image"]
    assert_close(fused.dense(), layer(segments["image"].dense()) + fusion.embeddings["image"])
    assert fused.axes == ()
