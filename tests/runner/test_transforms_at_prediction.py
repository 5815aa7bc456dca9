"""A checkpoint keeps what evaluation does to its inputs, and prediction does the same."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch.testing import assert_close

from predict import as_it_stands
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
        "data.text.tokenizer=bytes",
        "augment/text=case_noise",
        "augment/mix=mixup",
        "data.transform.text=[{_target_:datamodules.transforms.text.Lowercase}]",
    )
    answer = run_prediction(
        compose_run(f"ckpt_path={path}", "text=GOOD Film number 1", name="predict")
    )
    rows = as_in_the_test_loop(path, sentences)  # a line is its id
    assert_close(answer[0], rows["test.tsv:2"])


def test_words_of_the_training_texts_are_read_without_a_file(
    sentences, checkpoint, compose_run, capsys
):
    strange = "/ ${oc.env:HOME} a://b ??? Film\t0\n"
    for name in ("train", "test"):  # twice, so that they are words of the vocabulary
        file = sentences / f"{name}.tsv"
        file.write_text(2 * strange + file.read_text(), encoding="utf-8")
    path = checkpoint("data=text_tsv", f"data.root={sentences}", "augment/text=byte_noise")
    text = strange.partition("\t")[0]
    answer = run_prediction(
        compose_run(f"ckpt_path={path}", as_it_stands(f"text={text}"), name="predict")
    )
    assert_close(answer[0], as_in_the_test_loop(path, sentences)["test.tsv:1"])
    _, data, config = rebuild(path, reads_data=False)
    assert config["data"]["text"]["tokenizer"] == "words"
    assert (data.readers["text"].encode(text) > 6).all()
    shown = OmegaConf.load(path.parents[1] / "config.yaml")
    assert shown.data.text.vocabulary is None
    assert shown.data.text.vocab_size == len(config["data"]["text"]["vocabulary"].split(" ")) + 7


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
