"""Ids of text and anything on a grid as byte arrays."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from perceiver.adapters import ArrayAdapter, TokenAdapter
from perceiver.positions import FourierPositions, LearnedPositions, SinusoidalPositions


def test_text_is_looked_up_and_its_positions_added():
    position = partial(LearnedPositions, table_dim=5, add=True)
    adapter = TokenAdapter(vocab_size=13, dim=5, max_length=7, position=position)
    ids = torch.randint(0, 13, (2, 3))
    segment = adapter(ids)
    weight, table = adapter.embedding.weight, adapter.position.tables[0]
    expected = [[weight[i] + table[place] for place, i in enumerate(row)] for row in ids.tolist()]
    assert_close(segment.dense(), torch.stack([torch.stack(row) for row in expected]))
    assert segment.shape == (3,)
    assert adapter.channels == 5


def test_sinusoids_are_added_in_the_type_of_the_embedding():
    position = partial(SinusoidalPositions, dim=6)
    adapter = TokenAdapter(vocab_size=13, dim=6, max_length=7, position=position).bfloat16()
    ids = torch.randint(0, 13, (2, 5))
    exact = SinusoidalPositions(shape=(7,), dim=6).double()((5,))[0]
    expected = adapter.embedding(ids) + exact.bfloat16()
    assert adapter(ids).dense().dtype is torch.bfloat16
    assert_close(adapter(ids).dense(), expected, rtol=0, atol=0)


def test_the_mask_of_text_is_that_of_its_tokens():
    adapter = TokenAdapter(vocab_size=13, dim=5, max_length=7, position=None)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    assert adapter(torch.zeros(2, 3, dtype=torch.long), mask).mask is mask


def test_embeddings_start_as_a_truncated_normal():
    weight = TokenAdapter(vocab_size=97, dim=101, max_length=3, position=None).embedding.weight
    assert weight.abs().max() <= 0.04
    assert weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.03)

    small = TokenAdapter(vocab_size=97, dim=101, max_length=3, position=None, init_std=0.001)
    assert small.embedding.weight.abs().max() <= 0.002


def test_tokens_are_dropped_in_training_at_their_rate_and_each_text_keeps_one():
    adapter = TokenAdapter(
        vocab_size=13, dim=5, max_length=997, position=None, token_dropout=0.3, dropout=0.2
    )
    ids = torch.ones(7, 997, dtype=torch.long)
    mask = torch.arange(997) < torch.tensor([997, 997, 997, 997, 997, 1, 0])[:, None]
    segment = adapter(ids, mask)
    assert not (segment.mask & ~mask).any()
    # Four standard deviations of a binomial share.
    assert segment.mask[:5].float().mean().item() == pytest.approx(0.7, abs=0.026)
    assert segment.mask.any(1).tolist() == [True] * 6 + [False]
    assert (segment.content[:5] == 0).float().mean().item() == pytest.approx(0.2, abs=0.011)
    assert adapter(ids[:, :1]).mask.all()
    assert adapter.eval()(ids).mask is None
    assert_close(adapter(ids).content, adapter.embedding(ids))
    with pytest.raises(ValueError, match=r"token_dropout=1\.0"):
        TokenAdapter(vocab_size=13, dim=5, max_length=7, position=None, token_dropout=1.0)


@pytest.mark.parametrize("wrong", [13, -1])
def test_ids_out_of_the_vocabulary_are_named(wrong):
    adapter = TokenAdapter(vocab_size=13, dim=5, max_length=7, position=None)
    adapter(torch.tensor([[0, 12]]))
    with pytest.raises(ValueError, match=rf"id {wrong}, out of range for vocab_size=13"):
        adapter(torch.tensor([[0, wrong, 12]]))


def test_text_that_is_no_ids_is_refused(unchecked):
    adapter = TokenAdapter(vocab_size=13, dim=5, max_length=7, position=None)
    with pytest.raises(ValueError, match=r"type torch.float32; expected integer ids"):
        adapter(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\(3,\) and type"):
        adapter(torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"type torch.bool; expected integer ids"):
        adapter(torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask is torch.bool of shape \(2, 5\).*\(2, 3\)"):
        adapter(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool))


def test_the_elements_of_an_array_are_tokens_in_row_major_order_with_codes_of_all_axes():
    adapter = ArrayAdapter(
        channels=3, shape=(2, 3, 5), position=partial(FourierPositions, num_bands=2)
    )
    values = torch.randn(2, 2, 3, 5, 3)
    segment = adapter(values)
    codes = FourierPositions(shape=(2, 3, 5), num_bands=2)((2, 3, 5))
    tokens = segment.dense()
    for token, (i, j, k) in enumerate(torch.cartesian_prod(*map(torch.arange, (2, 3, 5))).tolist()):
        code = torch.cat([codes[0][i], codes[1][j], codes[2][k]]).expand(2, -1)
        assert_close(tokens[:, token], torch.cat([values[:, i, j, k], code], 1), rtol=0, atol=0)
    assert adapter.channels == tokens.shape[-1] == 3 + 3 * 5


def test_an_array_of_any_axes_is_embedded_and_masked():
    adapter = ArrayAdapter(channels=3, shape=(2, 5), position=None, embed_dim=7).double()
    values, mask = torch.randn(2, 2, 5, 3).double(), torch.rand(2, 2, 5) < 0.5
    segment = adapter(values, mask)
    expected = values @ adapter.embed.weight.T + adapter.embed.bias
    assert_close(segment.dense(), expected.reshape(2, 10, 7))
    assert segment.mask.tolist() == mask.reshape(2, 10).tolist()


def test_a_row_of_a_table_is_an_array_of_one_axis():
    adapter = ArrayAdapter(channels=1, shape=(5,), position=partial(LearnedPositions, table_dim=3))
    assert tuple(adapter(torch.randn(2, 5, 1)).dense().shape) == (2, 5, 4)


def test_arrays_of_other_axes_or_channels_are_refused():
    adapter = ArrayAdapter(channels=3, shape=(2, 5), position=None)
    with pytest.raises(ValueError, match=r"\(2, 5, 3\); expected a batch, 2 axes and 3 channels"):
        adapter(torch.randn(2, 5, 3))
    with pytest.raises(ValueError, match=r"\(2, 2, 5, 7\); expected"):
        adapter(torch.randn(2, 2, 5, 7))
