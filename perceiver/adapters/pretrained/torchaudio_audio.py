"""Encoders of torchaudio's wav2vec 2.0 pipelines: wav2vec 2.0, HuBERT, WavLM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.adapters.pretrained.hub import find_weights, needs, published
from perceiver.adapters.pretrained.plain import numbers
from perceiver.adapters.pretrained.sound import PretrainedAudioAdapter, conv_field, conv_length
from perceiver.adapters.pretrained.weights import load_weights, read_weights

_MODES = ("group_norm", "layer_norm")


class TorchaudioAdapter(PretrainedAudioAdapter):
    """The last hidden states of a torchaudio pipeline's encoder: one token every 20 ms.

    Args:
        name: of the pipeline: WAV2VEC2_BASE, HUBERT_BASE, WAVLM_BASE_PLUS.
        weights: a file of its weights; DEFAULT = the published ones; None = random ones.
        architecture: what `describe` gives; None = that of the name.
        sample_rate: samples a second, of the clips.
        max_seconds: the longest clip that is meant to come.
        **common: of every pretrained adapter.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: torchaudio has no such pipeline, the weights are another one's, or the clips
            have another rate.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        max_seconds: float,
        name: str | None = None,
        weights: str | None = None,
        architecture: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        architecture = dict(architecture or self.describe(name=name, weights=weights))
        encoder = _made(architecture)
        if weights is not None:
            load_weights(encoder, _weights(name, weights), of=weights)
        layers = architecture["options"]["extractor_conv_layer_config"]
        kernels, strides = [k for _, k, _ in layers], [s for _, _, s in layers]
        min_samples = conv_field(kernels, strides)
        samples = max(math.ceil(sample_rate * max_seconds), min_samples)
        super().__init__(
            sample_rate=sample_rate,
            rate=int(architecture["sample_rate"]),
            min_samples=min_samples,
            encoder=encoder,
            architecture=architecture,
            content_dim=architecture["options"]["encoder_embed_dim"],
            shape=[conv_length(samples, kernels, strides)],
            **common,
        )
        self.normalise = bool(architecture["normalise"])

    @classmethod
    def describe(cls, *, name: str | None, weights: str | None) -> dict[str, Any]:
        bundle = _bundle(name)
        if weights not in (None, "DEFAULT"):
            find_weights(str(weights))
        options = {
            option: [list(layer) for layer in value] if isinstance(value, list) else value
            for option, value in bundle._params.items()
        }
        return {
            "model": bundle._model_type,
            "options": options | {"aux_num_out": None, "encoder_layer_drop": 0.0},
            "sample_rate": int(bundle.sample_rate),
            "normalise": bool(bundle._normalize_waveform),
        }

    @classmethod
    def data_options(cls, architecture: Mapping[str, Any]) -> dict[str, Any]:
        return {"sample_rate": int(architecture["sample_rate"])}

    def hear(self, clips: Tensor) -> Tensor:
        if self.normalise:
            clips = F.layer_norm(clips, clips.shape[1:])
        like = next(self.encoder.parameters())
        tokens: Tensor = self.encoder(clips.to(like.dtype))[0]
        return tokens


def _bundle(name: str | None) -> Any:
    try:
        from torchaudio import pipelines
    except ImportError as error:
        raise needs("torchaudio", by="an audio encoder of torchaudio") from error
    kinds = pipelines.Wav2Vec2Bundle
    known = sorted(n for n, value in vars(pipelines).items() if isinstance(value, kinds))
    if name not in known:
        raise ValueError(
            f"torchaudio has no pipeline {name!r:.100}: set model.adapters.audio.name to one of "
            f"{', '.join(known)}"
        )
    return getattr(pipelines, str(name))


def _weights(name: str | None, weights: str) -> Mapping[str, Tensor]:
    if weights != "DEFAULT":
        return read_weights(find_weights(weights))
    bundle = _bundle(name)
    options = {"dl_kwargs": {"progress": False, "weights_only": True}}
    return published(lambda: bundle._get_state_dict(**options), of=f"of {name}")


def _made(architecture: Mapping[str, Any]) -> nn.Module:
    """The model of an architecture, without the head of recognition."""
    from torchaudio.models import wav2vec2_model, wavlm_model

    makers = {"Wav2Vec2": wav2vec2_model, "WavLM": wavlm_model}
    if architecture.get("model") not in makers:
        raise ValueError(f"{architecture.get('model')!r:.100} is none of {', '.join(makers)}")
    options = dict(architecture["options"])
    mode = options.pop("extractor_mode", None)
    if mode not in _MODES:
        raise ValueError(f"extractor_mode={mode!r:.100} is none of {', '.join(_MODES)}")
    return makers[architecture["model"]](
        extractor_mode=mode, **numbers(options, of="the architecture")
    )
