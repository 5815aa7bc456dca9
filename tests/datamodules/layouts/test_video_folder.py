"""data=video_folder: films in folders named after their class, seen and heard."""

import numpy as np
import pytest
import torch

from datamodules.core.cached_columns import CachedColumn
from tests.datamodules.clips import STEP, write_clip

pytest.importorskip("av")
RATE = 16000


def tones():
    """One second each of 400, 800 and 1600 Hz."""
    time = np.arange(3 * RATE) / RATE
    return 0.5 * np.sin(2 * np.pi * np.array([400, 800, 1600]).repeat(RATE) * time)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "films"
    for split, count in (("train", 3), ("test", 2)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                sound = tones() if label == "dog" else None
                write_clip(root / split / label / f"{index}.mp4", frames=30, sound=sound)
    return root


@pytest.fixture
def make(make_data, root):
    def make(modalities=("video",), video=None, **overrides):
        size = {"size": [16, 24], "channels": 1, "num_frames": 3} | (video or {})
        data = make_data(
            "video_folder",
            modalities=list(modalities),
            root=str(root),
            video=size,
            val_share=0.4,
            **overrides,
        )
        data.setup()
        return data

    return make


def frame_numbers(frames):
    return [round(float(frame.float().mean()) / STEP) for frame in frames]


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_films_are_frames_with_the_class_of_their_folder(make, cache_gib):
    data = make(cache_gib=cache_gib)
    assert data.class_names == ["cat", "dog"]
    examples = [data.splits["test"][0, index] for index in range(4)]
    assert [example.targets["target"] for example in examples] == [0, 0, 1, 1]
    assert examples[0].inputs["video"].shape == (3, 1, 16, 24)
    assert frame_numbers(examples[0].inputs["video"]) == [5, 15, 25]
    assert isinstance(data.splits["test"].source.columns["video"], CachedColumn) == bool(cache_gib)


def pitch(waveform):
    return torch.fft.rfft(waveform).abs().argmax().item() * RATE / len(waveform)


def test_training_hears_what_it_sees(make):
    data = make(["video", "audio"], {"sampling": "dense", "num_frames": 5})
    train = data.splits["train"]
    loud = next(index for index in range(len(train)) if train[0, index].targets["target"] == 1)
    seen = set()
    for epoch in range(9):
        inputs = train[epoch, loud].inputs
        first = frame_numbers(inputs["video"])[0]
        assert frame_numbers(inputs["video"]) == list(range(first, first + 5))
        assert len(inputs["audio"]) == RATE // 2
        if first % 10 <= 5:  # within one second
            expected = [400, 800, 1600][first // 10]
            assert pitch(inputs["audio"][200:-200]) == pytest.approx(expected, rel=0.03)
            seen.add(first // 10)
    assert len(seen) > 1


def test_evaluation_sees_the_same_in_every_epoch_and_with_every_seed(make):
    for sampling in ("random", "dense"):
        views = [
            make(video={"sampling": sampling}, seed=seed).splits["test"][epoch, 0].inputs["video"]
            for seed, epoch in [(0, 0), (3, 5)]
        ]
        assert torch.equal(*views)
    assert frame_numbers(views[0]) == [13, 14, 15]


def test_a_silent_film_lacks_the_audio(make):
    batch = next(iter(make(["video", "audio"]).test_dataloader()))
    assert "video" not in batch.present
    assert batch.present["audio"].tolist() == [False, False, True, True]


def test_films_can_be_heard_alone(make):
    data = make(["audio"], on_error="skip", error_budget=1.0)
    inputs = data.splits["test"][0, 3].inputs
    assert 3 * RATE <= len(inputs["audio"]) < 3 * RATE + 1024  # AAC fills its last block
    assert pitch(inputs["audio"][RATE + 200 : 2 * RATE - 200]) == pytest.approx(800, rel=0.03)


def test_a_broken_film_is_named_or_skipped(make, root):
    (root / "test" / "dog" / "0.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"dog/0\.mp4: it is no video"):
        make(cache_gib=0.0).splits["test"][0, 2]
    data = make(on_error="skip", error_budget=0.5, cache_gib=0.0)
    assert data.splits["test"][0, 2].inputs["video"] is None
    assert [row["id"] for row in data.bad_examples.rows()] == ["test/dog/0.mp4"]


def test_what_is_left_open_is_inferred_from_the_films(make):
    data = make(video={"size": None})
    assert data.inferred()["video"]["size"] == [32, 48]
    assert "32×48 pixels, 3 s, 10 frames a second, 50% with sound" in "\n".join(data.summary())


def test_a_table_of_films_is_seen_and_heard(make_data, root):
    rows = ["film,animal"]
    for label in ("cat", "dog"):
        rows += [f"{split}/{label}/{n}.mp4,{label}" for split in ("train", "test") for n in (0, 1)]
    (root / "films.csv").write_text("\n".join(rows) + "\n")
    common = {"path": str(root / "films.csv"), "val_share": 0.25, "test_share": 0.25}
    data = make_data("manifest", kinds=["video", "audio"], cache_gib=0.0, **common)
    data.setup()
    assert data.modalities == ["video"]
    assert data.inferred()["video"]["size"] == [32, 48]
    hint = "hint: data.columns.video=film data.columns.audio=film would hear films as well"
    assert hint in data.summary()
    columns = {"columns": {"video": "film", "audio": "film"}}
    data = make_data("manifest", kinds=["video", "audio"], cache_gib=0.0, **columns, **common)
    data.setup()
    assert data.inferred()["audio"]["max_seconds"] == 3.0
    assert hint not in data.summary()
    inputs = next(
        e.inputs for e in map(data.splits["train"].__getitem__, range(4)) if e.targets["target"]
    )
    assert frame_numbers(inputs["video"][:, :1]) == [1, 5, 9, 13, 16, 20, 24, 28]
    assert pitch(inputs["audio"][RATE + 200 : 2 * RATE - 200]) == pytest.approx(800, rel=0.03)
