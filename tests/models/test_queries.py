"""Queries by place and from inputs, and several heads on the same latents."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from perceiver.attention import Attention
from perceiver.models import (
    Heads,
    InputQueries,
    LearnedQueries,
    MeanPoolDecoder,
    PositionalQueries,
    QueryDecoder,
)
from perceiver.positions import FourierPositions, LearnedPositions
from perceiver.types import ByteArray, Segment

SINGLE = partial(Attention, num_heads=1)


def reads(segment: Segment) -> ByteArray:
    return ByteArray({"image": segment})


def test_positional_queries_are_the_very_codes_that_pixels_have(small_model, small_inputs):
    model = small_model("image")
    queries = PositionalQueries(
        shape=(3, 5), position=partial(FourierPositions, num_bands=3), modality="image"
    ).double()
    segment = model.adapters["image"](small_inputs["image"])
    codes = segment.dense()[:1, :, 3:]  # behind three colours
    assert_close(queries(3, reads(segment)), codes, rtol=0, atol=0)
    assert queries.dim == codes.shape[-1]
    assert queries.num_queries == 15


def test_positional_queries_are_as_many_as_the_batch_has_tokens_or_as_the_grid_has_places():
    position = partial(LearnedPositions, table_dim=7)
    content = Segment(torch.randn(2, 5, 3), shape=(5,))
    follows = PositionalQueries(shape=(11,), position=position, modality="image")
    assert_close(follows(2, reads(content))[0], follows.position.tables[0][:5], rtol=0, atol=0)
    always = PositionalQueries(shape=(11,), position=position)
    assert_close(always(2)[0], always.position.tables[0], rtol=0, atol=0)
    assert always.asked == ()


def test_input_queries_are_the_tokens_of_each_example():
    segment = Segment(torch.randn(2, 5, 3), axes=(torch.randn(5, 4),), shape=(5,))
    queries = InputQueries(modality="image", num_queries=5, dim=7)
    assert_close(queries(2, reads(segment)), segment.dense(), rtol=0, atol=0)


@pytest.fixture
def per_pixel():
    return partial(
        QueryDecoder,
        out_dim=5,
        queries=PositionalQueries(
            shape=(3, 5), position=partial(FourierPositions, num_bands=3), modality="image"
        ),
        attention=partial(Attention, num_heads=2),
    )


def test_a_model_answers_for_each_pixel_even_of_an_absent_picture(
    small_model, small_inputs, per_pixel
):
    model = small_model(decoder=per_pixel).eval()
    outputs = model(small_inputs)
    assert outputs.shape == (3, 15, 5)
    absent = {"image": torch.zeros(3, dtype=torch.bool)}
    without = model(small_inputs, present=absent)
    blank = {**small_inputs, "image": torch.zeros_like(small_inputs["image"])}
    assert_close(model(blank, present=absent), without, rtol=0, atol=0)
    assert not torch.allclose(without, outputs)
    del small_inputs["image"]
    with pytest.raises(ValueError, match="for each element of image, which the inputs lack"):
        model(small_inputs)


def test_heads_give_what_each_decoder_gives_by_name(small_model, small_inputs, per_pixel):
    mean = partial(MeanPoolDecoder, out_dim=2)
    model = small_model(decoder=partial(Heads, heads={"kind": mean, "pixels": per_pixel})).eval()
    outputs = model(small_inputs)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "kind": (3, 1, 2),
        "pixels": (3, 15, 5),
    }
    read = model.byte_array(small_inputs)
    latents = model.encoder(read)
    assert_close(outputs["kind"], model.decoder.heads["kind"](latents), rtol=0, atol=0)
    assert_close(outputs["pixels"], model.decoder.heads["pixels"](latents, read), rtol=0, atol=0)
    # Only the decoder whose shapes never change is compiled as a region.
    assert model.decoder.regions() == [model.decoder.heads["kind"]]
    assert model.asked == ("image",)


def test_heads_are_built_and_answer_without_memory(per_pixel):
    with torch.device("meta"):
        per_pixel.keywords["queries"] = PositionalQueries(
            shape=(3, 5), position=partial(LearnedPositions, table_dim=14), modality="image"
        )
        decoder = Heads(latent_dim=12, heads={"pixels": per_pixel})
        read = reads(Segment(torch.empty(3, 15, 3), shape=(3, 5)))
        outputs = decoder(torch.empty(3, 7, 12), read)
    assert outputs["pixels"].shape == (3, 15, 5)
    assert outputs["pixels"].is_meta


def test_misfits_name_the_head(small_model, per_pixel):
    def heads(decoder):
        return partial(Heads, heads={"pixels": decoder})

    with pytest.raises(
        ValueError, match=r"^model\.decoder\.heads\.pixels\.queries: asks about image, .* audio$"
    ):
        small_model("audio", decoder=heads(per_pixel))
    narrow = InputQueries(modality="image", num_queries=15, dim=17)
    with pytest.raises(ValueError, match=r"heads\.pixels\.queries: dim=17, but .* is 19 wide"):
        small_model("image", decoder=heads(partial(per_pixel, queries=narrow, attention=SINGLE)))
    refused = partial(per_pixel, queries=LearnedQueries(num_queries=1, dim=13))
    with pytest.raises(ValueError, match=r"^model\.decoder\.heads\.pixels\.attention: num_heads=5"):
        small_model(
            "image", decoder=heads(partial(refused, attention=partial(Attention, num_heads=5)))
        )
    with pytest.raises(ValueError, match="heads is empty"):
        small_model("image", decoder=partial(Heads, heads={}))
