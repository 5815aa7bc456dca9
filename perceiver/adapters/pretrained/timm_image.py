"""Image models of timm as encoders of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from perceiver.adapters.pretrained.hub import find_weights, needs
from perceiver.adapters.pretrained.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PretrainedImageAdapter,
    places,
    same_size,
)
from perceiver.adapters.pretrained.plain import first_line, numbers, read_json
from perceiver.adapters.pretrained.weights import weights_file


class TimmAdapter(PretrainedImageAdapter):
    """The tokens of any timm image model: a transformer's, or the places of the last feature map.

    Args:
        name: of the model as timm lists it: vit_tiny_patch16_224; None = as the weights say.
        weights: a folder in the hub's format, a file, or a name on the hub, timm/NAME; None =
            random ones.
        architecture: what `describe` gives; None = that of the name, or of the weights.
        channels: of the pictures: the encoder's, or 1.
        size: height and width that the encoder is to see; None = its own.
        **common: of every pretrained adapter.

    Raises:
        FileNotFoundError: for a path where nothing is.
        ValueError: timm has no such model, or the weights are another one's.
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
        encoder = _made(architecture, None if weights is None else find_weights(weights))
        super().__init__(encoder=encoder, architecture=architecture, channels=channels, **common)

    @classmethod
    def describe(cls, *, name: str | None, weights: str | None) -> dict[str, Any]:
        folder = None if weights is None else find_weights(weights)
        found: dict[str, Any] = {}
        if folder is not None and (folder / "config.json").is_file():
            found = read_json(folder / "config.json")
        name = name or found.get("architecture")
        if name is None:
            raise ValueError("which model of timm? set model.adapters.image.name, or weights to it")
        known = _known(name).to_dict()
        known |= found.get("pretrained_cfg") or {}
        return {
            "name": name,
            "options": _options(found.get("model_args") or {}, of=str(folder)),
            "size": [int(side) for side in known.get("input_size", (3, 224, 224))[1:]],
            "mean": [float(x) for x in known.get("mean", IMAGENET_MEAN)],
            "std": [float(x) for x in known.get("std", IMAGENET_STD)],
        }

    @staticmethod
    def features(encoder: Any, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        found = encoder.forward_features(pixels)
        if isinstance(found, Tensor) and found.dim() == 3:
            embed = getattr(encoder, "patch_embed", None)
            grid = getattr(embed, "grid_size", None)
            count = found.shape[1] - getattr(encoder, "num_prefix_tokens", 0)
            if grid is None or math.prod(grid) != count:
                side = math.isqrt(count)
                grid = (side, side) if side**2 == count else (1, count)
            return found, (int(grid[0]), int(grid[1]))
        if isinstance(found, Tensor) and str(getattr(encoder, "output_fmt", "")).endswith("NHWC"):
            found = found.movedim(-1, 1)
        return places(found)


def _options(given: Mapping[str, Any], *, of: str) -> dict[str, Any]:
    """The options of a model that are not of its head or its inputs.

    Raises:
        ValueError: for one that is neither a number nor the name of a pooling.
    """
    ours = {n: v for n, v in given.items() if n not in ("num_classes", "in_chans", "img_size")}
    pool = ours.pop("global_pool", None)
    if pool is not None and not (isinstance(pool, str) and f"pool_{pool}".isidentifier()):
        raise ValueError(f"{of} has global_pool={pool!r:.100}, which is no kind of pooling")
    return numbers(ours, of=of) | ({} if pool is None else {"global_pool": pool})


def _known(name: str) -> Any:
    """timm's own facts of a model.

    Raises:
        ValueError: timm has none of that name.
    """
    try:
        import timm
    except ImportError as error:
        raise needs("timm", by="an image model of timm") from error
    if not isinstance(name, str) or not timm.is_model(name):
        shown = name if isinstance(name, str) else repr(name)
        like = timm.list_models(f"*{shown[:12]}*")[:3] if shown.replace("_", "").isalnum() else []
        raise ValueError(
            f"timm has no model {shown!r:.100}"
            + (f": did you mean {', '.join(like)}?" if like else ": timm.list_models() names them")
        )
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _made(architecture: Mapping[str, Any], source: Path | None) -> nn.Module:
    """The model without its head, with the weights of a file or folder, else with random ones."""
    name, size = architecture["name"], list(architecture["size"])
    _known(name)
    import timm

    options = _options(architecture.get("options") or {}, of=f"the architecture {name}")
    loads: dict[str, Any] = {"pretrained": False}
    if source is not None:
        file = weights_file(source)
        overlay = {"file": str(file), "custom_load": file.suffix == ".npz"}
        loads = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    options |= {"num_classes": 0, "in_chans": len(architecture["mean"])}
    try:
        try:
            return timm.create_model(name, img_size=size, **loads, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, **loads, **options)  # it reads any size
    except (TypeError, RuntimeError, KeyError, AssertionError, ValueError, OSError) as error:
        of = f" from {source}" if source else ""
        raise ValueError(f"timm cannot make {name}{of}: {first_line(error)}") from error
