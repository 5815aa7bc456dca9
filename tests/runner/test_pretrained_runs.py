"""Runs with pretrained encoders: they learn, and their checkpoints need nothing else."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from perceiver.adapters import TimmAdapter
from perceiver.tasks.optimisers import parameter_groups
from runner.checkpoints import check_same_groups
from runner.pretrained import prepare_encoders
from runner.rebuild import rebuild
from runner.training import run_training
from runner.trusted import build
from tests.adapters.pretrained.encoders import save_bert, save_vit, save_wav2vec2
from tests.tiny import write_wav


@pytest.fixture
def films(tmp_path):
    """Fifty rows of a picture, a clip and a sentence, any of which tells the class."""
    root = tmp_path / "films"
    root.mkdir()
    rng = np.random.default_rng(0)
    with (root / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["still", "clip", "review", "label"])
        for n in range(50):
            kind = n % 2
            pixels = rng.integers(0, 60, (16, 16, 3)) + 190 * kind
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"{n}.png")
            write_wav(root / f"{n}.wav", 0.02, 300 + 2000 * kind + n)
            review = f"{'a' if n % 3 else 'the'} {'good' if kind else 'bad'} film"
            # The fourth row of each ten has no sound, the seventh no text.
            table.writerow(
                [
                    f"{n}.png",
                    "" if n % 10 == 4 else f"{n}.wav",
                    "" if n % 10 == 7 else review,
                    "xy"[kind],
                ]
            )
    return root / "films.csv"


@pytest.fixture
def encoders(tmp_path):
    """The overrides that put three encoders from folders in."""
    save_vit(tmp_path / "e" / "vit")
    save_bert(tmp_path / "e" / "bert")
    save_wav2vec2(tmp_path / "e" / "wave")
    return [
        "modality@model.adapters=[image,audio,text]",
        "modality@model.adapters.image=timm",
        f"model.adapters.image.weights={tmp_path}/e/vit",
        "modality@model.adapters.text=transformers_text",
        f"model.adapters.text.weights={tmp_path}/e/bert",
        "modality@model.adapters.audio=transformers_audio",
        f"model.adapters.audio.weights={tmp_path}/e/wave",
    ]


def test_a_run_learns_with_encoders_and_its_checkpoint_needs_no_folder(
    compose_run, tmp_path, films, encoders
):
    config = compose_run(
        "data=manifest",
        f"data.path={films}",
        "data.columns={image:still,audio:clip,text:review}",
        *encoders,
        "model.adapters.text.frozen=false",
        "trainer.max_epochs=6",
        "data.batch_size=8",
        "task.val_subsets=none",
        "task.test_subsets=none",
    )
    run_training(config)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test/acc"] >= 0.9
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    old, new = tmp_path / "e", tmp_path / "elsewhere"
    shutil.move(old, new)
    places = {"path": str(films), "text.tokenizer": f"{new}/bert/tokenizer.json"}
    task, datamodule, _ = rebuild(checkpoint, data_options=places)
    assert tuple(datamodule.readers["image"].size) == (16, 16)
    assert datamodule.readers["audio"].sample_rate == 8000
    for name, value in task.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    # The frozen encoder ends as it began, the tuned one does not.
    began = load_file(new / "vit" / "model.safetensors")["patch_embed.proj.weight"]
    assert torch.equal(task.model.adapters["image"].encoder.patch_embed.proj.weight, began)
    began = load_file(new / "bert" / "model.safetensors")[
        "bert.encoder.layer.0.output.dense.weight"
    ]
    tuned = task.model.adapters["text"].encoder.encoder.layer[0].output.dense.weight
    assert not torch.equal(tuned, began)
    assert task.model.adapters["image"].frozen
    assert not task.model.adapters["text"].frozen


def test_an_encoder_in_the_list_of_modalities_is_told_its_place(compose_run):
    config = compose_run("modality@model.adapters=[timm,text]")
    with pytest.raises(ValueError, match=r"modality@model.adapters.image=…"):
        run_training(config)


def test_weights_are_not_opened_at_a_checkpoints_word(tmp_path):
    save_vit(tmp_path)
    described = TimmAdapter.describe(name=None, weights=str(tmp_path))
    node = {
        "_target_": "perceiver.adapters.TimmAdapter",
        "channels": 3,
        "architecture": described,
        "weights": str(tmp_path),
    }
    with pytest.raises(ValueError, match="not read at its word"):
        build(node, where="model.adapters.image")
    assert build(node | {"weights": None}, where="x").architecture == described


def test_a_frozen_encoder_is_asked_once_unless_augmentation_was_chosen(compose_run):
    frozen = ["data=manifest", "data.path=x", "modality@model.adapters.image=timm"]
    frozen.append("model.adapters.image.name=test_vit")
    config = compose_run(*frozen)
    prepare_encoders(config)
    assert (config.data.augment.image, config.model.adapters.image.cache_gib) == ([], 1.0)
    assert (config.data.image.channels, config.data.image.size) == (3, [160, 160])
    config = compose_run(*frozen, "augment/image=flip_crop")
    prepare_encoders(config)
    assert config.data.augment.image
    assert config.model.adapters.image.cache_gib == 0
    config = compose_run(*frozen, "model.adapters.image.frozen=false")
    before = config.data.augment.image
    prepare_encoders(config)
    assert config.data.augment.image == before


def test_a_run_that_trains_other_parameters_is_not_resumed():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(parameter_groups(model), lr=1.0)
    checkpoint = {"optimizer_states": [optimizer.state_dict()]}
    check_same_groups(checkpoint, model, "last.ckpt")
    model.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"last\.ckpt trains 2 parameters .* this run 1 in"):
        check_same_groups(checkpoint, model, "last.ckpt")
