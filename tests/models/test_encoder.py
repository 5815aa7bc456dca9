"""The encoder: what is applied in which order, and which weights are shared."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from perceiver.attention import Attention
from perceiver.models import PerceiverEncoder
from perceiver.types import ByteArray, Segment


def encoder(**options) -> PerceiverEncoder:
    sizes = {"input_dim": 5, "num_latents": 3, "latent_dim": 8, "num_layers": 2}
    return PerceiverEncoder(
        **sizes,
        cross_attention=partial(Attention, num_heads=1),
        latent_attention=partial(Attention, num_heads=2),
        **options,
    )


def array(*lengths: int, dim: int = 5) -> ByteArray:
    return ByteArray({str(m): Segment(torch.randn(2, m, dim)) for m in lengths})


def applied(model: PerceiverEncoder) -> list[str]:
    """The blocks that a forward pass applies, in order."""
    order = []
    for kind, blocks in (("cross", model.cross_attends), ("latent", model.latent_blocks)):
        for index, block in enumerate(blocks):
            layers = [block] if kind == "cross" else block
            for number, layer in enumerate(layers):
                label = f"{kind}{index}" if kind == "cross" else f"{kind}{index}.{number}"
                layer.register_forward_hook(lambda *_, label=label: order.append(label))
    model(array(7))
    return order


@pytest.mark.parametrize(
    ("sharing", "crosses"),
    [("after_first", [0, 1, 1]), ("all", [0, 0, 0]), ("none", [0, 1, 2])],
)
@pytest.mark.parametrize("share_blocks", [True, False])
def test_blocks_follow_each_other_with_the_weights_that_the_sharing_says(
    sharing, crosses, share_blocks
):
    model = encoder(
        num_blocks=4, num_cross_attends=3, cross_sharing=sharing, share_blocks=share_blocks
    )
    expected = []
    for block in range(4):
        if block < 3:
            expected.append(f"cross{crosses[block]}")
        latent = 0 if share_blocks else block
        expected += [f"latent{latent}.0", f"latent{latent}.1"]
    assert applied(model) == expected


@pytest.mark.parametrize("sharing", ["after_first", "all", "none"])
def test_one_cross_attend_is_the_same_under_every_sharing(sharing):
    model = encoder(num_blocks=2, cross_sharing=sharing)
    assert applied(model) == ["cross0", "latent0.0", "latent0.1", "latent0.0", "latent0.1"]
    assert len(model.cross_attends) == 1


def test_every_layer_has_weights_of_its_own():
    model = encoder(num_blocks=3, num_cross_attends=3, cross_sharing="none", share_blocks=False)
    weights = [p for name, p in model.named_parameters() if name.endswith("to_query.weight")]
    assert len(weights) == 3 + 3 * 2
    assert len({w.data_ptr() for w in weights}) == len(weights)
    first, *rest = (w for w in weights if w.shape == weights[0].shape)
    assert not any(torch.equal(first, other) for other in rest)


def test_latents_start_learned_and_pass_from_block_to_block():
    model = encoder(num_blocks=2, num_cross_attends=2).double()
    tokens = torch.randn(2, 7, 5).double()
    mask = torch.rand(2, 7) < 0.7
    latents = torch.stack([model.latents, model.latents])
    for block in range(2):
        latents = model.cross_attends[block](latents, tokens, mask=mask)
        for layer in model.latent_blocks[0]:
            latents = layer(latents)
    assert_close(model(ByteArray({"a": Segment(tokens, mask=mask)})), latents)


def test_the_order_of_tokens_does_not_matter_but_their_contents_do():
    model = encoder().double()
    tokens = torch.randn(2, 7, 5).double()
    permuted = ByteArray({"a": Segment(tokens[:, torch.randperm(7)])})
    straight = ByteArray({"a": Segment(tokens)})
    changed = ByteArray({"a": Segment(tokens + torch.eye(7, 5).double())})
    assert_close(model(permuted), model(straight))
    assert not torch.allclose(model(changed), model(straight))


def test_latents_start_as_a_truncated_normal():
    model = PerceiverEncoder(
        input_dim=2,
        num_latents=97,
        latent_dim=101,
        cross_attention=Attention,
        latent_attention=Attention,
        num_layers=0,
        init_std=0.05,
    )
    assert model.latents.abs().max() <= 0.1
    # The standard deviation of a unit normal that is cut at 2.
    assert model.latents.std().item() == pytest.approx(0.05 * 0.8796, rel=0.03)


@pytest.mark.parametrize("crosses", [0, 3])
def test_cross_attends_that_do_not_open_a_block_are_refused(crosses):
    with pytest.raises(ValueError, match=rf"num_cross_attends={crosses} .*num_blocks=2"):
        encoder(num_blocks=2, num_cross_attends=crosses)


def test_impossible_encoders_are_refused():
    with pytest.raises(ValueError, match="cross_sharing='first' must be one of after_first, all"):
        encoder(cross_sharing="first")
    sizes = {"input_dim": 5, "num_latents": 3, "latent_dim": 8}
    with pytest.raises(ValueError, match=r"model\.latent_attention: num_heads=3 does not divide"):
        PerceiverEncoder(
            **sizes, cross_attention=Attention, latent_attention=partial(Attention, num_heads=3)
        )
    with pytest.raises(ValueError, match=r"model\.cross_attention: num_heads=3 does not divide"):
        PerceiverEncoder(
            **sizes, cross_attention=partial(Attention, num_heads=3), latent_attention=Attention
        )
    with pytest.raises(ValueError, match="num_latents=0"):
        PerceiverEncoder(
            **(sizes | {"num_latents": 0}), cross_attention=Attention, latent_attention=Attention
        )


LOCATION = partial(Attention, score="location", heads="identity")
SWIN = partial(Attention, position="swin_table")


def grid(*sizes):
    return partial(SWIN, options={"swin_table": {"grid": sizes}})


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (partial(LOCATION, options={"location": {"max_len": 2}}), "max_len=2 for 3 keys"),
        (grid(2, 2), "2 × 2 = 4 elements for 3 queries and 3 keys"),
    ],
)
def test_latent_attention_that_cannot_serve_so_many_latents_is_refused_when_built(attention, said):
    with pytest.raises(ValueError, match=rf"^model\.latent_attention: .*{said}"):
        PerceiverEncoder(
            input_dim=5,
            num_latents=3,
            latent_dim=8,
            cross_attention=partial(Attention, num_heads=1),
            latent_attention=attention,
        )


def test_cross_attention_that_cannot_serve_so_many_tokens_is_refused_when_asked():
    model = PerceiverEncoder(
        input_dim=5,
        num_latents=3,
        latent_dim=8,
        cross_attention=partial(LOCATION, options={"location": {"max_len": 7}}),
        latent_attention=grid(1, 3),
    )
    model.check_lengths(7)
    model(array(3, 4))
    with pytest.raises(ValueError, match=r"^model\.cross_attention: .*max_len=7 for 11 keys"):
        model.check_lengths(11)
