"""Pretrained encoders as adapters: their tokens become a segment of the byte array."""

from perceiver.adapters.pretrained.adapter import PretrainedAdapter
from perceiver.adapters.pretrained.timm_image import TimmAdapter
from perceiver.adapters.pretrained.torchaudio_audio import TorchaudioAdapter
from perceiver.adapters.pretrained.torchvision_image import TorchvisionAdapter
from perceiver.adapters.pretrained.transformers_audio import TransformersAudioAdapter
from perceiver.adapters.pretrained.transformers_text import TransformersTextAdapter

__all__ = [
    "PretrainedAdapter",
    "TimmAdapter",
    "TorchaudioAdapter",
    "TorchvisionAdapter",
    "TransformersAudioAdapter",
    "TransformersTextAdapter",
]
