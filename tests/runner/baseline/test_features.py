"""Features against closed forms and scikit-learn."""

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from datamodules.readers.text import TextReader
from runner.baseline.features import Features, numbers, pictures, sounds


def test_texts_have_the_tf_idf_of_their_words_and_pairs_of_words():
    texts = ["a good film indeed", "a dull film it was", "so good so long a film"]
    found = Features("text", None).fit([texts[0], texts[1].encode(), None, texts[2]])
    words = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True
    ).fit_transform(texts)
    assert np.allclose(found[[0, 1, 3], :-1].toarray(), words.toarray())
    assert found[:, -1].toarray().ravel().tolist() == [0, 0, 1, 0]
    assert found[2].nnz == 1


def test_names_are_compared_by_their_letters_and_ids_of_bytes_are_letters():
    reader = TextReader(max_length=11)
    features = Features("text", reader)
    known = features.fit([reader.encode("seven"), reader.encode("three")])
    new = features.transform(["sevven"])
    assert (new @ known[0].T)[0, 0] > (new @ known[1].T)[0, 0]


def test_a_slope_has_one_direction_and_its_colours_are_counted():
    slope = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    for image, direction in ((slope, 0), (slope.mT, None)):
        colours, thumb, cells = pictures(image)[0].split([8, 64, 9 * 64])
        assert torch.allclose(colours.sum(), torch.ones(()))
        assert torch.allclose(colours, torch.full((8,), 1 / 8))
        assert torch.allclose(thumb.view(8, 8).mean(), torch.tensor(0.5), atol=1e-6)
        strength = cells.view(9, -1).sum(1)
        if direction is None:  # 90° lies between the fifth and the sixth of nine directions
            assert torch.allclose(strength[4], strength[5])
            assert strength[[4, 5]].sum() > 0.99 * strength.sum()
        else:
            assert strength[direction] > 0.99 * strength.sum()


def test_bytes_and_floats_of_one_picture_have_the_same_features():
    pixels = torch.randint(0, 256, (2, 3, 11, 13), dtype=torch.uint8)
    assert torch.allclose(pictures(pixels), pictures(pixels / 127.5 - 1), atol=1e-4)


def test_a_tone_is_loudest_in_its_band_and_while_it_lasts():
    time = torch.arange(8000) / 8000
    tone = torch.sin(2 * torch.pi * 1000 * time) * (time < 0.4)
    mean, _, parts = sounds(tone[None], rate=8000)[0].split([32, 32, 5 * 32])
    band = int(mean.argmax())
    low, high = (2595 * np.log10(1 + f / 700) for f in (1000, 4000))
    assert abs(band - (low / high * 33 - 1)) < 1.5
    levels = parts.view(32, 5)[band]
    assert (levels[:2] > levels[2:].max() + 5).all()
    assert sounds(torch.zeros(1, 3), rate=8000).isfinite().all()


def test_numbers_are_standardised_ids_one_hot_and_what_is_far_does_not_decide_alone():
    features = Features("array", None)
    values = torch.randn(37, 5)
    found = features.fit(list(values))
    assert np.allclose(found.mean(0), 0, atol=1e-6)
    assert np.allclose(np.square(found).sum(1).mean(), 1)
    assert np.abs(features.transform([torch.full((5,), 1e30)])).max() <= 10
    ids = Features("category", None)
    known = ids.fit([torch.tensor([0, 7]), torch.tensor([1, 7])])
    assert sparse.issparse(known)
    assert known.toarray().tolist() == [[1, 0, 1], [0, 1, 1]]
    assert ids.transform([torch.tensor([2, 7])]).toarray().tolist() == [[0, 0, 1]]
    assert numbers(torch.zeros(2, 100, 100)).shape == (2, 4096)
