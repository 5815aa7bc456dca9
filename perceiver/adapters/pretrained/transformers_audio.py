"""Audio encoders of transformers: of waveforms, and of spectrograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver.adapters.pretrained.hub import find_weights
from perceiver.adapters.pretrained.plain import numbers, read_json
from perceiver.adapters.pretrained.sound import PretrainedAudioAdapter, conv_field, conv_length
from perceiver.adapters.pretrained.transformers_model import make_encoder, read_config

_SPECTRUM, _WHISPER = "audio-spectrogram-transformer", "whisper"
_WAVE = {"wav2vec2", "hubert", "wavlm", "unispeech", "data2vec-audio"}
TYPES = _WAVE | {_SPECTRUM, _WHISPER}


class TransformersAudioAdapter(PretrainedAudioAdapter):
    """The last hidden states of an audio encoder, after its own feature extractor.

    Wav2vec 2.0 and its kin give a token every 20 ms; the audio spectrogram transformer two tokens
    and a grid of frequency by time, of the same size for any clip; Whisper's encoder a token every
    20 ms, of which those of the silence that it adds are left out.

    Args:
        weights: a folder that `save_pretrained` wrote, with its preprocessor_config.json, or a name
            on the hub; None = random ones.
        architecture: what `describe` gives; None = that of the weights.
        sample_rate: samples a second, of the clips.
        max_seconds: the longest clip that is meant to come.
        **common: of every pretrained adapter.

    Raises:
        FileNotFoundError: for a path where nothing is.
        ValueError: it is no audio encoder that is known, or does not fit the clips.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        max_seconds: float,
        weights: str | None = None,
        architecture: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        architecture = architecture or self.describe(name=None, weights=weights)
        source = None if weights is None else find_weights(weights)
        encoder: Any = make_encoder(architecture, source, types=TYPES, what="audio")
        config, extractor = encoder.config, _extractor(architecture)
        samples, prefix = math.ceil(sample_rate * max_seconds), 0
        min_samples = math.ceil(0.025 * extractor.sampling_rate)  # a frame of a spectrogram
        if config.model_type == _SPECTRUM:
            step = config.patch_size
            rows = (config.num_mel_bins - step) // config.frequency_stride + 1
            shape, prefix = [rows, (config.max_length - step) // config.time_stride + 1], 2
        elif config.model_type == _WHISPER:
            encoder, hop = encoder.encoder, 2 * extractor.hop_length
            shape = [min(config.max_source_positions, -(-samples // hop))]
        else:
            min_samples = conv_field(config.conv_kernel, config.conv_stride)
            longest = max(samples, min_samples)
            shape = [conv_length(longest, config.conv_kernel, config.conv_stride)]
        super().__init__(
            sample_rate=sample_rate,
            rate=extractor.sampling_rate,
            min_samples=min_samples,
            encoder=encoder,
            architecture=architecture,
            content_dim=config.hidden_size,
            shape=shape,
            prefix=prefix,
            fixed=config.model_type == _SPECTRUM,
            **common,
        )
        self.model_type, self.extractor = config.model_type, extractor

    @classmethod
    def describe(cls, *, name: str | None, weights: str | None) -> dict[str, Any]:
        if weights is None:
            raise ValueError(
                "which audio encoder of transformers? set model.adapters.audio.weights to a "
                "folder or a name on the hub"
            )
        folder = find_weights(weights)
        found = read_config(folder, types=TYPES, what="audio")
        return found | {"extractor": _read_extractor(folder, found)}

    @classmethod
    def data_options(cls, architecture: Mapping[str, Any]) -> dict[str, Any]:
        return {"sample_rate": int(architecture.get("extractor", {}).get("sampling_rate", 16000))}

    def hear(self, clips: Tensor) -> Tensor:
        # On the CPU, as the library computes it; a waveform is normalised in full precision.
        waves = list(clips.detach().float().cpu().numpy())
        rate = self.extractor.sampling_rate
        found = self.extractor(waves, sampling_rate=rate, return_tensors="pt")
        like = next(self.encoder.parameters())
        features = next(iter(found.values())).to(like.device, like.dtype)
        tokens: Tensor = self.encoder(features).last_hidden_state
        if self.model_type == _WHISPER:
            tokens = tokens[:, : -(-clips.shape[1] // (2 * self.extractor.hop_length))]
        return tokens


def _read_extractor(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the feature extractor, from its own file if there is one."""
    options = {n: v for n, v in found["options"].items() if n in ("num_mel_bins", "max_length")}
    if found["model_type"] != _SPECTRUM:
        options = {}
    file = (folder if folder.is_dir() else folder.parent) / "preprocessor_config.json"
    if file.is_file():
        told = read_json(file)
        own = set(_extractor({"model_type": found["model_type"]}).to_dict())
        options |= {n: v for n, v in told.items() if n in own and isinstance(v, bool | int | float)}
    return options


def _extractor(architecture: Mapping[str, Any]) -> Any:
    """The library's feature extractor.

    Raises:
        ValueError: for options that are not numbers.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

    given = architecture.get("extractor") or {}
    options = numbers(given, of="the feature extractor")
    made: Any = FEATURE_EXTRACTOR_MAPPING[CONFIG_MAPPING[architecture["model_type"]]]
    return made(**options)
