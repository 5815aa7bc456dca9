"""Image models of torchvision as encoders of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceiver.adapters.pretrained.hub import find_weights, needs, published
from perceiver.adapters.pretrained.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PretrainedImageAdapter,
    places,
    same_size,
)
from perceiver.adapters.pretrained.weights import load_weights, read_weights

_HEADS = ("fc", "classifier", "head", "heads", "avgpool", "permute", "flatten")


class TorchvisionAdapter(PretrainedImageAdapter):
    """The tokens of a torchvision classifier: a ViT's, or the places of the last feature map.

    Args:
        name: of the model as torchvision lists it: resnet18, convnext_tiny, vit_b_16.
        weights: a file of its weights; the name of published ones, DEFAULT or IMAGENET1K_V1; None =
            random ones.
        architecture: what `describe` gives; None = that of the name.
        channels: of the pictures: 3, or 1.
        size: height and width that the encoder is to see; None = 224 × 224.
        **common: of every pretrained adapter.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: torchvision has no such model, or the weights are another one's.
    """

    def __init__(
        self,
        *,
        channels: int,
        name: str | None = None,
        weights: str | None = None,
        architecture: dict[str, Any] | None = None,
        size: Sequence[int] | None = None,
        **common: Any,
    ) -> None:
        architecture = dict(architecture or self.describe(name=name, weights=weights))
        architecture["size"] = same_size(size, architecture["size"])
        encoder = _made(architecture)
        if weights is not None:
            load_weights(encoder, _weights(architecture["name"], weights), of=weights)
        super().__init__(encoder=encoder, architecture=architecture, channels=channels, **common)

    @classmethod
    def describe(cls, *, name: str | None, weights: str | None) -> dict[str, Any]:
        if name is None:
            raise ValueError(
                "which model of torchvision? set model.adapters.image.name=resnet18, or another"
            )
        _check(name)
        if weights is not None and weights not in _published(name):
            find_weights(weights)
        return {"name": name, "size": [224, 224], "mean": IMAGENET_MEAN, "std": IMAGENET_STD}

    @staticmethod
    def features(encoder: Any, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if hasattr(encoder, "class_token"):  # a ViT
            patches = encoder._process_input(pixels)
            tokens = torch.cat([encoder.class_token.expand(len(pixels), -1, -1), patches], 1)
            side = pixels.shape[2] // encoder.patch_size
            return encoder.encoder(tokens), (side, pixels.shape[3] // encoder.patch_size)
        found = pixels
        for part in encoder.children():
            found = part(found)
        if hasattr(encoder, "norm"):  # a Swin transformer keeps channels last
            found = found.movedim(-1, 1)
        return places(found)


def _check(name: str) -> None:
    try:
        from torchvision.models import list_models
    except ImportError as error:
        raise needs("torchvision", by="an image model of torchvision") from error
    import torchvision

    if name not in list_models(module=torchvision.models):
        raise ValueError(
            f"torchvision has no classifier {name!r:.100}: torchvision.models.list_models() names "
            "them"
        )


def _published(name: str) -> list[str]:
    from torchvision.models import get_model_weights

    return ["DEFAULT", *get_model_weights(name).__members__]


def _weights(name: str, weights: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights

    if weights not in _published(name):
        return read_weights(find_weights(weights))
    entry = get_model_weights(name)[weights]
    return published(
        lambda: entry.get_state_dict(progress=False, check_hash=True, weights_only=True),
        of=f"{weights} of {name}",
    )


def _made(architecture: Mapping[str, Any]) -> nn.Module:
    """The model without its head."""
    name, (height, width) = architecture["name"], architecture["size"]
    _check(name)
    from torchvision.models import get_model

    if name in ("googlenet", "inception_v3", "maxvit_t"):
        raise ValueError(f"{name} of torchvision gives no map of features: choose another model")
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        if height != width:
            raise ValueError(f"{name} of torchvision needs square pictures, got {height} × {width}")
        options["image_size"] = height
    model = get_model(name, weights=None, **options)
    for head in _HEADS:
        if hasattr(model, head):
            delattr(model, head)
    return model
