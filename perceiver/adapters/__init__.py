"""Adapters: one modality's raw tensors → the segments of a byte array."""

from perceiver.adapters.adapter import Adapter
from perceiver.adapters.array import ArrayAdapter
from perceiver.adapters.audio import SpectrogramAdapter, WaveformAdapter
from perceiver.adapters.columns import CategoryAdapter, NumberAdapter
from perceiver.adapters.dropout import ModalityDropout
from perceiver.adapters.fuse import Fusion, PaddingFusion, ProjectionFusion
from perceiver.adapters.image import PatchAdapter, PixelAdapter
from perceiver.adapters.image_convolutions import ConvStagesAdapter, ConvStemAdapter
from perceiver.adapters.pretrained import (
    PretrainedAdapter,
    TimmAdapter,
    TorchaudioAdapter,
    TorchvisionAdapter,
    TransformersAudioAdapter,
    TransformersTextAdapter,
)
from perceiver.adapters.text import TokenAdapter
from perceiver.adapters.video import VideoAdapter

__all__ = [
    "Adapter",
    "ArrayAdapter",
    "CategoryAdapter",
    "ConvStagesAdapter",
    "ConvStemAdapter",
    "Fusion",
    "ModalityDropout",
    "NumberAdapter",
    "PaddingFusion",
    "PatchAdapter",
    "PixelAdapter",
    "PretrainedAdapter",
    "ProjectionFusion",
    "SpectrogramAdapter",
    "TimmAdapter",
    "TokenAdapter",
    "TorchaudioAdapter",
    "TorchvisionAdapter",
    "TransformersAudioAdapter",
    "TransformersTextAdapter",
    "VideoAdapter",
    "WaveformAdapter",
]
