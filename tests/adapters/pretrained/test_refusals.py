"""What cannot be a pretrained encoder is refused in a sentence, and nothing is run or fetched."""

import json
import os
import time

import pytest
import torch

from perceiver.adapters import (
    TimmAdapter,
    TorchaudioAdapter,
    TorchvisionAdapter,
    TransformersAudioAdapter,
    TransformersTextAdapter,
)
from tests.adapters.pretrained.encoders import save_bert, save_vit, save_wav2vec2


def texts(**options):
    return TransformersTextAdapter(**({"vocab_size": 10, "max_length": 13} | options))


def sounds(**options):
    return TransformersAudioAdapter(**({"sample_rate": 8000, "max_seconds": 1.0} | options))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: texts(), "model.adapters.text.weights"),
        (lambda: texts(weights="./nowhere"), "no such folder or file"),
        (lambda: texts(weights="owner/name"), "HF_HUB_OFFLINE"),
        (lambda: texts(weights="https://x.org/model"), "no such folder or file"),
        (lambda: TimmAdapter(channels=3), "model.adapters.image.name"),
        (lambda: TimmAdapter(channels=3, name="vit_tiny_patch16"), "did you mean vit_tiny"),
        (lambda: TimmAdapter(channels=3, name="hf-hub:owner/name"), "timm has no model"),
        (lambda: TimmAdapter(channels=3, name="local-dir:/etc"), "timm has no model"),
        (lambda: TimmAdapter(channels=2, name="test_vit"), "data.image.channels=3"),
        (lambda: TimmAdapter(channels=3, name="test_vit", size=[7]), "height and width"),
        (lambda: TorchvisionAdapter(channels=3, name="resnet"), "no classifier 'resnet'"),
        (lambda: TorchvisionAdapter(channels=3, name="maxvit_t"), "no map of features"),
        (
            lambda: TorchaudioAdapter(sample_rate=16000, max_seconds=1.0, name="X"),
            "WAV2VEC2_BASE",
        ),
    ],
)
def test_what_is_not_there_is_named_within_seconds(make, words):
    start = time.monotonic()
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        make()
    assert time.monotonic() - start < 5


def test_without_a_network_the_hub_is_given_up_within_seconds(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(ValueError, match="hub cannot be reached: name a folder"):
        texts(weights="owner/name-of-nothing")
    assert time.monotonic() - start < 5


def test_published_weights_that_cannot_be_downloaded_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="DEFAULT of squeezenet1_1 are not here and cannot be"):
        TorchvisionAdapter(channels=3, name="squeezenet1_1", size=[64, 64], weights="DEFAULT")


def test_weights_of_another_model_are_refused(tmp_path):
    bert, vit = save_bert(tmp_path / "bert"), save_vit(tmp_path / "vit")
    with pytest.raises(ValueError, match="model_type='bert' is no audio encoder"):
        sounds(weights=str(bert))
    (bert / "config.json").write_text(
        json.dumps(json.loads((bert / "config.json").read_text()) | {"num_hidden_layers": 3})
    )
    with pytest.raises(ValueError, match=r"of another model: they lack encoder\.layer\.2"):
        texts(weights=str(bert))
    with pytest.raises(ValueError, match="timm cannot make test_vit from"):
        TimmAdapter(channels=3, name="test_vit", weights=str(vit))
    with pytest.raises(ValueError, match=r"of another model: .* is \(.*\) here, and the file has"):
        TorchvisionAdapter(channels=3, name="squeezenet1_1", weights=str(vit / "model.safetensors"))
    (vit / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        TimmAdapter(channels=3, weights=str(vit))
    (vit / "config.json").unlink()
    (vit / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        TimmAdapter(channels=3, name="test_vit", weights=str(vit))


def test_texts_and_clips_that_an_encoder_cannot_read_are_refused(tmp_path):
    bert, wave = str(save_bert(tmp_path / "bert")), str(save_wav2vec2(tmp_path / "wave"))
    with pytest.raises(ValueError, match=r"data\.text\.max_length=31"):
        texts(weights=bert, max_length=32)
    with pytest.raises(ValueError, match="knows 10 ids, and the tokenizer gives 262"):
        texts(weights=bert, vocab_size=262)
    with pytest.raises(ValueError, match="text holds the id 10"):
        texts(weights=bert)(torch.tensor([[3, 10]]))
    with pytest.raises(ValueError, match=r"data\.audio\.sample_rate=8000"):
        sounds(weights=wave, sample_rate=16000)
    with pytest.raises(ValueError, match="mono"):
        sounds(weights=wave)(torch.zeros(2, 2, 100))


def test_code_in_files_of_weights_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/exploded",)

    bert, vit = save_bert(tmp_path / "bert"), save_vit(tmp_path / "vit")
    for folder, make in ((bert, texts), (vit, lambda **o: TimmAdapter(channels=3, **o))):
        (folder / "model.safetensors").unlink()
        torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
        with pytest.raises(ValueError):  # noqa: PT011 -- the libraries' own words
            make(weights=str(folder))
    torch.save({"weight": Bomb()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not a file of weights alone"):
        TorchvisionAdapter(channels=3, name="squeezenet1_1", weights=str(tmp_path / "weights.pth"))
    assert not (tmp_path / "exploded").exists()


def test_code_beside_weights_is_not_imported(tmp_path):
    bert = save_bert(tmp_path / "bert")
    (bert / "evil.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((bert / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    (bert / "config.json").write_text(json.dumps(config))
    assert "auto_map" not in texts(weights=str(bert)).architecture["options"]
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("make", "architecture"),
    [
        (texts, {"model_type": "gpt2", "options": {}}),
        (texts, {"model_type": "bert", "options": {"auto_map": {"AutoModel": "evil.Evil"}}}),
        (texts, {"model_type": "bert", "options": {"name_or_path": "/etc/x"}}),
        (texts, {"model_type": "bert", "options": {"attn_implementation": "owner/kernel"}}),
        (texts, {"model_type": "bert", "options": {"hidden_act": "../x"}}),
        (texts, {"model_type": ["bert"], "options": {}}),
        (texts, {"model_type": "bert", "options": "x"}),
        (sounds, {"model_type": "wav2vec2", "extractor": {"auto_map": "evil.Evil"}}),
        (
            lambda **o: TimmAdapter(channels=3, **o),
            {"name": "test_vit", "size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
            | {"options": {"checkpoint_path": "/etc/x"}},
        ),
        (
            lambda **o: TimmAdapter(channels=3, **o),
            {"name": "test_vit", "size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
            | {"options": {"pretrained_cfg": 1}},
        ),
        (
            lambda **o: TimmAdapter(channels=3, **o),
            {"name": "hf-hub:owner/x", "size": [32, 32], "mean": [0.5], "std": [0.5]},
        ),
        (
            lambda **o: TorchaudioAdapter(sample_rate=8000, max_seconds=1.0, **o),
            {"model": "os.system", "options": {}},
        ),
    ],
)
def test_an_architecture_is_plain_data_of_a_known_model(make, architecture):
    with pytest.raises(ValueError):  # noqa: PT011 -- each has a sentence of its own
        make(architecture=architecture)
