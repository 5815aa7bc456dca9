"""What makes the steps of a run faster: a compiled model, products that are less exact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import nn

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What the model may be compiled to, and what is said of it.
COMPILED: dict[bool | str, str] = {
    True: "latent blocks and decoder in the first step",
    "whole": "the whole model in the first steps",
    "graphs": "the whole model to CUDA graphs in the first steps",
}
MATMUL_PRECISIONS = ("highest", "high", "medium")  # of torch
# The GPUs that multiply in eight bits: Ada, Hopper and later.
_FLOAT8_CAPABILITY = (8, 9)
_ALIGNED = 16  # widths of layers that their matrix units take


def uses_gpu(trainer: DictConfig) -> bool:
    """Whether the trainer of this config will run on CUDA devices."""
    return trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def check_speed(config: DictConfig) -> None:
    """Refuse what this machine has no use for.

    Raises:
        ValueError: for a choice that is none, CUDA graphs without a GPU or with gradients that
            are summed over batches, or eight bits on a GPU without such products.
    """
    if type(config.compile) not in (bool, str) or config.compile not in (False, *COMPILED):
        raise ValueError(
            f"compile={config.compile} is none of its choices: false, true (latent blocks and "
            "decoder), whole (the model as one program) and graphs (the same as CUDA graphs)"
        )
    if type(config.float8) is not bool:
        raise ValueError(f"float8={config.float8} is none of its choices: false and true")
    if config.matmul_precision not in MATMUL_PRECISIONS:
        raise ValueError(
            f"matmul_precision={config.matmul_precision} is none of its choices: highest (float32 "
            "as it is), high (TF32 on GPUs) and medium (bfloat16 as well)"
        )
    on_gpu = uses_gpu(config.trainer)
    if config.compile == "graphs" and not on_gpu:
        raise ValueError("compile=graphs needs a CUDA device: set compile=whole on a CPU")
    batches = config.trainer.get("accumulate_grad_batches") or 1
    if config.compile == "graphs" and batches != 1:
        raise ValueError(
            f"compile=graphs cannot sum gradients over trainer.accumulate_grad_batches={batches}: "
            "a replayed graph writes them where those of the batch before stand; set compile=whole"
        )
    if config.float8 and on_gpu and torch.cuda.get_device_capability() < _FLOAT8_CAPABILITY:
        raise ValueError(
            f"float8=true needs a GPU that multiplies in eight bits (Ada, Hopper or later), and "
            f"{torch.cuda.get_device_name()} does not: set float8=false"
        )


def regions(model: nn.Module, asked: str) -> list[nn.Module]:
    """The parts that the model names as having the same shapes in every batch.

    Args:
        model: one with a method `regions`.
        asked: the option that needs it, with what to set instead.

    Raises:
        ValueError: if it names none.
    """
    if not hasattr(model, "regions"):
        raise ValueError(f"{type(model).__name__} names no regions for {asked}")
    return model.regions()


def compile_model(model: nn.Module, what: bool | str) -> None:
    """Compile the model where it stands; the first steps then take longer.

    Args:
        model: of the task.
        what: a key of `COMPILED`: the regions that the model names, all of it as one program, or
            that as CUDA graphs, which a GPU replays without waiting for Python.
    """
    if what is True:
        for region in regions(model, "compile=true: set compile=whole or compile=false"):
            region.compile()
    elif what == "graphs":
        model.compile(mode="reduce-overhead")
    else:
        model.compile()
    rank_zero_info(f"compiling {COMPILED[what]}")


class CompileTime(pl.Callback):
    """Says how long the first training step of a run took, in which its model is compiled.

    `seconds`: of that step; None before it.
    """

    seconds: float | None = None
    _start = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.seconds is None:
            self.seconds = time.perf_counter() - self._start
            rank_zero_info(f"compiled: the first step took {self.seconds:.0f} s")


def use_float8(model: nn.Module, *, emulated: bool) -> None:
    """Let linear layers of the model's regions multiply in eight bits, in both directions.

    Operands are scaled to the range of float8 by their largest value each time (torchao's dynamic
    tensorwise recipe: e4m3 forward, e5m2 for gradients). Parameters, their names and checkpoints
    stay as they are, and so does what computes with the weights themselves, such as structured
    cross-attention. It is for training: a trained model is rebuilt without. Layers take part whose
    widths are multiples of 16, except for the last one of the model, whose outputs are the answer.

    Args:
        model: one that names its regions.
        emulated: round to eight bits and multiply in the precision at hand: the same results on
            any machine, slowly.

    Raises:
        ValueError: without torchao, or if no layer takes part.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise ValueError(
            "float8=true needs the package torchao: pip install 'perceiver-multimodal[float8]'"
        ) from error
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    inside = {
        layer
        for region in regions(model, "float8=true: set float8=false")
        for layer in region.modules()
    }
    chosen = {layer for layer in linear[:-1] if layer in inside and _is_aligned(layer)}
    if not chosen:
        raise ValueError(
            "float8=true: no linear layer of the model's regions has widths that are multiples of "
            f"{_ALIGNED}: set model.encoder.latent_dim to one, or float8=false"
        )
    config = Float8LinearConfig(emulate=emulated, pad_inner_dim=True)
    convert_to_float8_training(
        model, config=config, module_filter_fn=lambda layer, _: layer in chosen
    )
    how = "emulated: slow, as there is no GPU" if emulated else "on the GPU"
    rank_zero_info(f"{len(chosen)} linear layers multiply in float8 ({how})")


def _is_aligned(layer: nn.Linear) -> bool:
    return layer.in_features % _ALIGNED == 0 and layer.out_features % _ALIGNED == 0
