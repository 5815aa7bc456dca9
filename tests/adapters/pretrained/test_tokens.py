"""Tokens of pretrained encoders are what their own libraries give of each example alone."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perceiver.adapters import (
    TimmAdapter,
    TorchaudioAdapter,
    TorchvisionAdapter,
    TransformersAudioAdapter,
    TransformersTextAdapter,
)
from perceiver.positions import FourierPositions
from tests.adapters.pretrained.encoders import save_ast, save_bert, save_vit, save_wav2vec2

fourier = partial(FourierPositions, num_bands=3)


def normalised(tokens):
    return F.layer_norm(tokens, tokens.shape[-1:])


def test_a_vit_gives_its_tokens_with_the_class_token_on_no_place(tmp_path):
    import timm

    save_vit(tmp_path)
    adapter = TimmAdapter(channels=3, weights=str(tmp_path), position=fourier)
    pixels = torch.rand(2, 3, 16, 16)
    published = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    mean, std = (torch.tensor(adapter.architecture[n])[:, None, None] for n in ("mean", "std"))
    with torch.no_grad():
        expected = published.forward_features((pixels - mean) / std)
    segment = adapter(2 * pixels - 1)
    assert segment.content.shape == (2, 17, 24)
    assert_close(segment.content, normalised(expected))
    (codes,) = segment.axes
    rows, columns = fourier(shape=(4, 4))((4, 4))
    assert not codes[0].any()
    assert_close(codes[1 + 4 * 2 + 3], torch.cat([rows[2], columns[3]]))
    assert (adapter.num_tokens, adapter.channels) == (17, segment.channels)


def test_a_convolutional_network_gives_the_places_of_its_last_map_row_by_row():
    timm = pytest.importorskip("timm")
    adapter = TimmAdapter(channels=1, name="test_resnet", size=[64, 96], position=fourier)
    pixels = torch.rand(2, 1, 64, 96)
    model = timm.create_model("test_resnet", num_classes=0).eval()
    model.load_state_dict(adapter.encoder.state_dict())
    with torch.no_grad():  # its mean and deviation are a half
        maps = model.forward_features((2 * pixels - 1).expand(-1, 3, -1, -1))
    segment = adapter(2 * pixels - 1)
    assert segment.shape == tuple(maps.shape[2:]) == (2, 3)
    assert_close(segment.content[:, 3 * 1 + 2], normalised(maps[:, :, 1, 2]))


def test_a_padded_picture_is_read_as_if_it_came_alone(tmp_path):
    adapter = TimmAdapter(channels=3, weights=str(save_vit(tmp_path)))
    pixels, mask = torch.rand(2, 3, 23, 29), torch.ones(2, 23, 29, dtype=torch.bool)
    mask[1, 13:] = mask[1, :, 11:] = False
    segment = adapter(pixels, mask)
    assert segment.mask is None
    assert_close(segment.content[1:], adapter(pixels[1:, :, :13, :11]).content)


def test_weights_of_one_size_are_fitted_to_another(tmp_path):
    import timm

    adapter = TimmAdapter(channels=3, weights=str(save_vit(tmp_path)), size=[24, 16])
    fitted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=[24, 16]).eval()
    pixels = torch.rand(1, 3, 24, 16)
    with torch.no_grad():
        expected = fitted.forward_features((pixels - adapter.mean) / adapter.std)
    assert_close(adapter(2 * pixels - 1).content, normalised(expected))
    assert expected.shape == (1, 1 + 6 * 4, 24)


def test_a_torchvision_network_gives_its_last_map_and_reads_a_file_of_weights(tmp_path):
    from torchvision.models import mobilenet_v3_small

    published = mobilenet_v3_small(weights=None).eval()
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    options = {"channels": 3, "name": "mobilenet_v3_small", "size": [32, 64]}
    adapter = TorchvisionAdapter(weights=str(tmp_path / "weights.pth"), **options)
    pixels = torch.rand(2, 3, 32, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        maps = published.features((pixels - mean[:, None, None]) / std[:, None, None])
    tokens = maps.flatten(2).transpose(1, 2)
    assert_close(adapter(2 * pixels - 1).content, normalised(tokens))


@pytest.mark.parametrize("name", ["swin_t", "vit_b_32"])
def test_torchvision_transformers_give_their_tokens(name):
    from torchvision.models import get_model

    adapter = TorchvisionAdapter(channels=3, name=name, size=[32, 32])
    options = {"image_size": 32} if name == "vit_b_32" else {}
    model = get_model(name, weights=None, **options).eval()
    model.load_state_dict(adapter.encoder.state_dict(), strict=False)
    found = {}
    last = model.encoder if name == "vit_b_32" else model.permute
    last.register_forward_hook(lambda *call: found.update(tokens=call[2]))
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        model((pixels - adapter.mean) / adapter.std)
    tokens = found["tokens"]
    tokens = tokens.flatten(2).transpose(1, 2) if tokens.dim() == 4 else tokens
    assert_close(adapter(2 * pixels - 1).content, normalised(tokens))


def test_padding_changes_no_token_of_a_text(tmp_path):
    import transformers

    save_bert(tmp_path)
    adapter = TransformersTextAdapter(vocab_size=10, max_length=13, weights=str(tmp_path))
    published = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids, mask = torch.randint(2, 10, (3, 13)), torch.ones(3, 13, dtype=torch.bool)
    mask[1, 5:] = mask[2, 1:] = False
    segment = adapter(ids, mask)
    assert segment.mask.tolist() == mask.tolist()
    for row, length in ((0, 13), (1, 5), (2, 1)):
        with torch.no_grad():
            alone = published(ids[row : row + 1, :length]).last_hidden_state
        assert_close(segment.content[row, :length], normalised(alone[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_changes_no_token_of_a_waveform(tmp_path, norm):
    import transformers

    options = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    save_wav2vec2(tmp_path, **options)
    adapter = TransformersAudioAdapter(sample_rate=8000, max_seconds=0.05, weights=str(tmp_path))
    published = transformers.AutoModel.from_pretrained(tmp_path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    clips, mask = 3 + torch.randn(3, 401), torch.ones(3, 401, dtype=torch.bool)
    mask[1, 203:] = False
    segment = adapter(clips, mask)
    for row, length in ((0, 401), (1, 203), (2, 401)):
        heard = extractor(clips[row, :length].numpy(), sampling_rate=8000, return_tensors="pt")
        with torch.no_grad():
            alone = published(**heard).last_hidden_state[0]
        assert segment.mask[row].sum() == len(alone)
        assert_close(segment.content[row, : len(alone)], normalised(alone), rtol=1e-4, atol=1e-5)
    assert segment.content.shape[1] <= adapter.num_tokens


def test_a_clip_that_is_shorter_than_a_token_is_one(tmp_path):
    options = {"sample_rate": 8000, "max_seconds": 0.001, "weights": str(save_wav2vec2(tmp_path))}
    adapter = TransformersAudioAdapter(**options)
    assert adapter(torch.randn(2, 3)).content.shape == (2, adapter.num_tokens, 20) == (2, 1, 20)


def test_a_spectrogram_transformer_hears_what_its_own_extractor_makes(tmp_path):
    import transformers

    save_ast(tmp_path)
    options = {"sample_rate": 16000, "max_seconds": 0.3, "weights": str(tmp_path)}
    adapter = TransformersAudioAdapter(position=fourier, **options)
    published = transformers.AutoModel.from_pretrained(tmp_path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    clips, mask = torch.randn(2, 3001), torch.ones(2, 3001, dtype=torch.bool)
    mask[1, 1999:] = False
    segment = adapter(clips, mask)
    assert segment.mask is None
    for row, length in ((0, 3001), (1, 1999)):
        heard = extractor(clips[row, :length].numpy(), sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            alone = published(**heard).last_hidden_state[0]
        assert_close(segment.content[row], normalised(alone), rtol=1e-4, atol=1e-5)
    assert not segment.axes[0][:2].any()
    assert segment.axes[0].shape[0] == adapter.num_tokens == 2 + 2 * 3


TINY_PIPELINE = {
    "model": "Wav2Vec2",
    "sample_rate": 8000,
    "normalise": True,
    "options": {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [[7, 10, 5], [7, 4, 2]],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 20,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 6,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 2,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 23,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    },
}


def test_a_torchaudio_encoder_hears_each_clip_alone(tmp_path):
    from torchaudio.models import wav2vec2_model

    published = wav2vec2_model(**TINY_PIPELINE["options"]).eval()
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    adapter = TorchaudioAdapter(
        sample_rate=8000,
        max_seconds=0.05,
        architecture=TINY_PIPELINE,
        weights=str(tmp_path / "weights.pth"),
    )
    clips, mask = 3 + torch.randn(2, 400), torch.ones(2, 400, dtype=torch.bool)
    mask[1, 211:] = False
    segment = adapter(clips, mask)
    for row, length in ((0, 400), (1, 211)):
        clip = clips[row : row + 1, :length]
        with torch.no_grad():
            alone = published((clip - clip.mean()) / clip.std(correction=0))[0][0]
        assert segment.mask is None or segment.mask[row].sum() == len(alone)
        assert_close(segment.content[row, : len(alone)], normalised(alone), rtol=1e-4, atol=1e-5)


def test_a_published_pipeline_is_described_by_its_own_options():
    from torchaudio.pipelines import WAVLM_BASE_PLUS

    found = TorchaudioAdapter.describe(name="WAVLM_BASE_PLUS", weights=None)
    assert (found["model"], found["sample_rate"]) == ("WavLM", 16000)
    layers = WAVLM_BASE_PLUS._params["extractor_conv_layer_config"]
    assert found["options"]["extractor_conv_layer_config"] == [list(layer) for layer in layers]
