"""A checkpoint keeps what evaluation does to its inputs, and prediction does the same."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from runner.prediction import run_prediction
from runner.rebuild import rebuild
from runner.training import run_training

SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "test=false", "callbacks=default"]
SHORT += ["trainer.limit_val_batches=1", "task.val_subsets=none"]


@pytest.fixture
def checkpoint(compose_run, tmp_path):
    def train(*overrides):
        run_training(compose_run(*SHORT, *overrides))
        return tmp_path / "run" / "checkpoints" / "best.ckpt"

    return train


def as_in_the_test_loop(path, root):
    """id → probabilities, as the test loop computes them."""
    task, data, _ = rebuild(path, data_options={"num_workers": 0, "root": str(root)})
    with torch.inference_mode():
        batches = [(batch.ids, task.predict_step(batch, 0)) for batch in data.test_dataloader()]
    return {name: row for names, rows in batches for name, row in zip(names, rows, strict=True)}


def test_pictures_are_cropped_and_normalised_as_in_the_test(
    photographs, checkpoint, compose_run, capsys
):
    pixels = np.random.default_rng(1).integers(0, 256, (41, 67, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photographs / "test" / "cat" / "0.png")
    normal = "{_target_:datamodules.transforms.image.Normalise,mean:[.4,.5,.6],std:[.2,.3,.1]}"
    crop = "{_target_:datamodules.transforms.image.CentreCrop,size:[16,16],scale:1.2}"
    path = checkpoint(
        "data=image_folder",
        f"data.root={photographs}",
        "data.image.size=[16,16]",
        "data.image.resize=keep",
        "augment/image=random_resized_crop",
        "augment/mix=mixup_cutmix",
        f"data.transform.image=[{crop},{normal}]",
    )
    file = photographs / "test" / "cat" / "0.png"
    answer = run_prediction(compose_run(f"ckpt_path={path}", f"image={file}", name="predict"))
    assert_close(answer[0], as_in_the_test_loop(path, photographs)["test/cat/0.png"])
    # With other means the answer would be another: the transform has been at work.
    data = rebuild(path, data_options={"root": str(photographs)})[1]
    data.setup()
    inputs = data.splits["test"][0, 0].inputs["image"]
    assert inputs.shape == (3, 16, 16)
    assert inputs.min() < -1.2


def test_texts_are_transformed_as_in_the_test(sentences, checkpoint, compose_run, capsys):
    path = checkpoint(
        "data=text_tsv",
        f"data.root={sentences}",
        "augment/text=case_noise",
        "augment/mix=mixup",
        "data.transform.text=[{_target_:datamodules.transforms.text.Lowercase}]",
    )
    answer = run_prediction(
        compose_run(f"ckpt_path={path}", "text=GOOD Film number 1", name="predict")
    )
    rows = as_in_the_test_loop(path, sentences)  # a line is its id
    assert_close(answer[0], rows["test.tsv:2"])


def test_films_are_seen_and_heard_as_in_the_test(films, checkpoint, compose_run, capsys):
    path = checkpoint(
        "data=video_folder",
        "modality@model.adapters=[video,audio]",
        f"data.root={films}",
        "data.batch_size=2",
        "data.video.size=[16,16]",
        "data.video.num_frames=3",
        "data.video.sampling=dense",
        "augment/video=crop_flip",
        "augment/audio=waveform",
        "augment/spectrogram=specaugment",
        "augment/mix=cutmix",
    )
    file = films / "test" / "dog" / "1.mp4"
    given = [f"ckpt_path={path}", f"video={file}", f"audio={file}"]
    answer = run_prediction(compose_run(*given, name="predict"))
    assert_close(answer[0], as_in_the_test_loop(path, films)["test/dog/1.mp4"])
