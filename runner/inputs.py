"""How pictures and sound are read, and changed in training: options left open, chosen from data."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig

from datamodules.core.facts import DataFacts
from datamodules.readers import kind_of
from datamodules.sets.synthesis.number_names import NAMES
from perceiver.adapters import ConvStagesAdapter
from perceiver.adapters.image_convolutions import fitting_stages
from perceiver.types import TargetKind

_MOST = 100_000  # training examples; more of them need no changed copies
_LEAST_SIDE = 24  # pixels of a picture that can be shifted and is still what it was
_LEAST_SECONDS = 0.25  # likewise of a sound that can lose a stretch
_SIDES = {"left", "right", "clockwise", "anticlockwise", "counterclockwise"}
_DIGITS = {name.lower() for names in NAMES.values() for name in names}
_V2 = "torchvision.transforms.v2"
_STAGES = f"perceiver.adapters.{ConvStagesAdapter.__name__}"


def settle_inputs(config: DictConfig, facts: DataFacts) -> None:
    """Fill in what is null: the stages of pictures' adapters, and augmentations.

    Args:
        config: with the data set's options as they were found; is changed.
        facts: of the data set.
    """
    for adapter in filter(None, (config.model.get("adapters") or {}).values()):
        if adapter.get("_target_") == _STAGES and adapter.dims is None and adapter.strides is None:
            adapter.dims, adapter.strides = fitting_stages(adapter.size)
        if "augment" in adapter and adapter.augment is None:
            adapter.augment = _spectrogram_changes(adapter, facts)
    augment = config.data.get("augment") or {}
    for kind, choose in (("image", _picture_changes), ("audio", _sound_changes)):
        if kind in augment and augment[kind] is None and kind in _kinds(config):
            augment[kind] = choose(config, facts)[0]


def describe_inputs(final: DictConfig, given: DictConfig, facts: DataFacts) -> list[str]:
    """What was chosen, a line each, for people.

    Args:
        final: as it was settled.
        given: as it was before.
        facts: of the data set.
    """
    lines = []
    for name, adapter in (final.model.get("adapters") or {}).items():
        adapter = adapter or {}
        if adapter.get("_target_") == _STAGES and adapter.dims:
            stages = zip(adapter.dims, adapter.strides, strict=True)
            told = ", ".join(f"{dim} channels at stride {stride}" for dim, stride in stages)
            lines.append(f"{name:10} 3×3 convolutions: {told}")
        before = given.model.adapters.get(name) or given.model.adapters.get(kind_of(name)) or {}
        if before.get("augment", "") is None and adapter.augment is not None:
            frames, bins = adapter.augment.time_mask_param, adapter.augment.freq_mask_param
            told = f"up to {frames} frames and {bins} bins hidden (augment/spectrogram=…)"
            lines.append(f"augment    {name}: {told}")
    augment = given.data.get("augment") or {}
    for kind, choose in (("image", _picture_changes), ("audio", _sound_changes)):
        if kind in augment and augment[kind] is None and kind in _kinds(final):
            steps, told = choose(final, facts)
            lines += [f"augment    {kind}: {told} (augment/{kind}=…)"] if steps else []
    return lines


def why_not_mirrored(config: DictConfig, facts: DataFacts) -> str | None:
    """Why a picture's mirror image may be of another class; None = nothing says so.

    Args:
        config: with the data set's options as they were found.
        facts: of the data set.
    """
    names = [str(name).lower() for name in facts.class_names]
    cameras = [name for name in config.data.modalities if kind_of(name) == "image"]
    if facts.targets == TargetKind.VALUES:
        return "the targets are values"
    if len(cameras) > 1:
        return "pictures belong together"
    if names and all(len(n) == 1 or n.isdigit() or n in _DIGITS for n in names):
        return "classes named by characters may be characters"
    if any(_SIDES & set(re.split(r"[\W_]+", name)) for name in names):
        return "classes name sides"
    if config.data.image.channels < 3:
        return "grey pictures may be of writing"
    return None


def _picture_changes(config: DictConfig, facts: DataFacts) -> tuple[list[dict[str, Any]], str]:
    """Transforms of pictures in training, and what they do."""
    image = config.data.image
    # Where sizes are kept, transforms have to bring pictures to one.
    if _is_large(facts) or min(image.size) < _LEAST_SIDE or image.get("resize") == "keep":
        return [], ""
    steps, told = [], []
    reason = why_not_mirrored(config, facts)
    if reason is None:
        steps.append({"_target_": f"{_V2}.RandomHorizontalFlip"})
        told.append("mirrored")
    if image.get("resize") != "fit":  # else each has a size of its own
        shift = [side // 8 for side in image.size]
        crop = {"_target_": f"{_V2}.RandomCrop", "size": list(image.size)}
        steps.append(crop | {"padding": [shift[1], shift[0]]})  # of columns, then of rows
        told.append(f"shifted by up to {max(shift)} pixels")
    if reason is not None:
        told.append(f"not mirrored, as {reason}")
    return steps, ", ".join(told)


def _sound_changes(config: DictConfig, facts: DataFacts) -> tuple[list[dict[str, Any]], str]:
    """Transforms of waveforms in training, and what they do."""
    is_short = config.data.audio.max_seconds < _LEAST_SECONDS
    if _is_large(facts) or is_short or facts.targets == TargetKind.VALUES:
        return [], ""
    speed = {"_target_": "datamodules.transforms.audio.RandomSpeed", "low": 0.9, "high": 1.1}
    return [speed], "up to 10 % faster or slower"


def _spectrogram_changes(adapter: DictConfig, facts: DataFacts) -> dict[str, Any] | None:
    """SpecAugment (Park et al. 2019) in proportion to the spectrogram; None for short sounds."""
    if _is_large(facts) or adapter.max_seconds < _LEAST_SECONDS:
        return None
    frames = adapter.sample_rate * adapter.max_seconds / adapter.hop_length
    return {
        "_target_": "torchaudio.transforms.SpecAugment",
        "n_time_masks": 1,
        "time_mask_param": max(1, round(0.1 * frames)),
        "n_freq_masks": 1,
        "freq_mask_param": max(1, adapter.num_bins // 5),
        "iid_masks": True,
        "zero_masking": True,  # 0 is the mean of a normalised spectrogram
    }


def _is_large(facts: DataFacts) -> bool:
    return facts.num_examples.get("train", 0) > _MOST


def _kinds(config: DictConfig) -> set[str]:
    """Kinds of modalities to change: not what frozen encoders read, whose tokens are kept."""
    names, adapters = config.data.get("modalities") or (), config.model.get("adapters") or {}
    return {kind_of(n) for n in names if not (adapters.get(n) or {}).get("frozen", False)}
