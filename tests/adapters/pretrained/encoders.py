"""Tiny encoders with random weights, saved as their libraries save them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "number", "a", "the"]


def save_vit(folder: Path, size: int = 16) -> Path:
    """A transformer of pictures: 4 × 4 patches of 4 pixels behind a class token."""
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=size,
        patch_size=4,
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=5,
    )
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def save_bert(folder: Path, **options: int) -> Path:
    """A BERT of ten words, with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    settings = {
        "vocab_size": len(WORDS),
        "hidden_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 23,
        "max_position_embeddings": 31,
        "initializer_range": 0.3,  # random weights that tell words apart
    }
    config = transformers.BertConfig(**(settings | options))
    _save(transformers.BertForMaskedLM(config), folder)  # with a head, as most are published
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def save_wav2vec2(folder: Path, **options: object) -> Path:
    """A wav2vec 2.0 whose first layer normalises over time; it sees 25 samples, every 10."""
    transformers = pytest.importorskip("transformers")
    settings = {
        "hidden_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 23,
        "conv_dim": [7, 7],
        "conv_kernel": [10, 4],
        "conv_stride": [5, 2],
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 6,
        "num_conv_pos_embedding_groups": 2,
    }
    config = transformers.Wav2Vec2Config(**(settings | options))
    _save(transformers.Wav2Vec2Model(config), folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder


def save_ast(folder: Path) -> Path:
    """An audio spectrogram transformer of 2 × 3 patches behind two tokens."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=23,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
        num_mel_bins=16,
        max_length=24,
    )
    _save(transformers.ASTModel(config), folder)
    extractor = transformers.ASTFeatureExtractor(
        num_mel_bins=16, max_length=24, mean=-3.7, std=2.3, sampling_rate=16000
    )
    extractor.save_pretrained(folder)
    return folder


def _save(model: torch.nn.Module, folder: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)
