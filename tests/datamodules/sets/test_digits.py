"""data=digits: real scans, made tones and names, degraded so that none suffices."""

import numpy as np
import pytest
import torch

from datamodules.sets.sklearn_digits import ScanDamage, load_scans
from datamodules.sets.synthesis.number_names import NAMES

MODALITIES = ["image", "audio", "text"]
SHARES = {"val_share": 0.1, "test_share": 0.2}


@pytest.fixture
def data(make_data):
    data = make_data("digits", modalities=MODALITIES)
    data.setup()
    return data


def inputs(dataset, epoch, index):
    return {name: value.tolist() for name, value in dataset[epoch, index].inputs.items()}


def test_splits_never_share_a_scan_and_leave_none_out():
    parts = load_scans(**SHARES, split_seed=0)
    numbers = np.concatenate([part.numbers for part in parts.values()])
    assert sorted(numbers) == list(range(1797))
    pixels = [{scan.tobytes() for scan in part.pixels} for part in parts.values()]
    assert not pixels[0] & pixels[1] | pixels[0] & pixels[2] | pixels[1] & pixels[2]


def test_splits_have_their_shares_of_every_digit():
    parts = load_scans(**SHARES, split_seed=0)
    counts = {name: np.bincount(part.targets) for name, part in parts.items()}
    total = sum(counts.values())
    for name, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        # Each of the two cuts rounds by half a scan at most.
        assert (np.abs(counts[name] - share * total) <= 1).all()


def test_another_split_seed_holds_out_other_scans():
    first, second = (load_scans(**SHARES, split_seed=seed)["test"].numbers for seed in (0, 1))
    assert set(first) != set(second)


def test_scans_are_the_real_ones_with_their_labels():
    from sklearn.datasets import load_digits

    part = load_scans(**SHARES, split_seed=3)["val"]
    pixels, targets = load_digits(return_X_y=True)
    np.testing.assert_allclose(part.pixels[5].ravel(), pixels[part.numbers[5]] / 8 - 1)
    assert (part.targets == targets[part.numbers]).all()


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.5, 0.5)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match=r"data\.val_share=.*leave a part for training"):
        load_scans(val_share=shares[0], test_share=shares[1], split_seed=0)


def test_an_example_is_a_grey_scan_a_clip_and_bytes(data):
    example = data.splits["train"][0, 3]
    assert example.inputs["image"].shape == (1, 8, 8)
    assert example.inputs["audio"].shape == (1024,)
    assert example.inputs["text"].dtype == torch.int64
    for name in ("image", "audio"):
        assert example.inputs[name].dtype == torch.float32
        assert example.inputs[name].abs().max() <= 1
    assert example.id.startswith("scan ")


def test_training_is_drawn_anew_every_epoch_and_evaluation_never(data):
    for index in range(3):
        first, again, later = (inputs(data.splits["train"], e, index) for e in (0, 0, 1))
        assert first == again
        assert first["image"] != later["image"]
        assert first["audio"] != later["audio"]
        assert inputs(data.splits["test"], 0, index) == inputs(data.splits["test"], 1, index)
    texts = {tuple(inputs(data.splits["train"], epoch, 0)["text"]) for epoch in range(11)}
    assert len(texts) > 5


def test_a_modality_alone_is_the_same_as_among_the_others(data, make_data):
    alone = make_data("digits", modalities=["audio"])
    alone.setup()
    together = data.splits["test"][0, 5].inputs["audio"]
    assert torch.equal(alone.splits["test"][0, 5].inputs["audio"], together)


def test_undegraded_modalities_describe_the_label(make_data):
    clean = {
        "image": {"noise": [0, 0], "patch": [0, 0]},
        "audio": {"snr_db": [60, 60], "frequency_error": [0, 0]},
        "text": {"rate": [0, 0], "languages": ["Greek"]},
    }
    data = make_data("digits", modalities=MODALITIES, degrade=clean)
    data.setup()
    test = data.splits["test"]
    for index in range(23):
        example = test[0, index]
        expected = torch.from_numpy(test.source.scans.pixels[index])
        assert torch.equal(example.inputs["image"][0], expected)
        name = bytes((example.inputs["text"] - 6).tolist()).decode()
        assert name == NAMES["Greek"][example.targets["target"]]


def test_all_languages_are_used(make_data):
    data = make_data("digits", modalities=["text"], degrade={"text": {"rate": [0, 0]}})
    data.setup()
    train = data.splits["train"]
    names = [bytes((train[0, i].inputs["text"] - 6).tolist()).decode() for i in range(len(train))]
    assert set(names) == {name for language in NAMES.values() for name in language}


def test_damage_wipes_a_square_and_adds_noise():
    ink = np.ones((8, 8), dtype=np.float32)
    wiped = ScanDamage(noise=(0, 0), patch=(3, 3))(ink, np.random.default_rng(0))
    assert (wiped == -1).sum() == 9
    rows, columns = np.nonzero(wiped == -1)
    assert np.ptp(rows) == np.ptp(columns) == 2
    grey = np.zeros((8, 8), dtype=np.float32)
    noisy = ScanDamage(noise=(0.2, 0.2), patch=(0, 0))(grey, np.random.default_rng(0))
    # 64 draws estimate a standard deviation to 9 %; three times that.
    assert noisy.std() == pytest.approx(0.2, rel=0.27)


def test_degradations_are_independent_between_modalities(data):
    """A scan that loses much is as often heard well as any other."""
    train = data.splits["train"]
    examples = [train[0, index] for index in range(400)]
    noise = [example.inputs["image"].diff(dim=-1).std().item() for example in examples]
    power = [example.inputs["audio"].std().item() for example in examples]
    # The standard error of a correlation of 400 independent pairs is 0.05.
    assert abs(np.corrcoef(noise, power)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image": {"size": [16, 16]}}, r"The scans have 1 channel and \[8, 8\].*\[16, 16\]"),
        ({"degrade": {"text": {"languages": ["Klingon"]}}}, r"\['Klingon'\], choose from"),
        ({"degrade": {"text": {"rate": [0.5, 0.1]}}}, r"data\.degrade\.text\.rate"),
        ({"degrade": {"image": {"patch": [2, 9]}}}, r"data\.degrade\.image\.patch"),
        ({"num_classes": 7}, r"has label 7, outside \[0, 7\)"),
    ],
)
def test_impossible_options_are_refused(make_data, overrides, message):
    with pytest.raises(Exception, match=message):
        make_data("digits", modalities=MODALITIES, **overrides).setup()
