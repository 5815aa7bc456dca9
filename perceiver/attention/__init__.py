"""Attention as one equation with named axes; needs torch alone."""

from perceiver.attention.attention import Attention
from perceiver.attention.axes import AXES
from perceiver.attention.context import Context
from perceiver.attention.losses import (
    ReinforceLoss,
    RunningBaseline,
    SampledChoices,
    doubly_stochastic_penalty,
    reinforce_loss,
)
from perceiver.attention.multi_head import (
    CosineAttention,
    DifferentialAttention,
    LinearAttention,
    MultiHeadAttention,
    StandAloneSelfAttention,
)
from perceiver.attention.named import (
    BahdanauAttention,
    DotAttention,
    HardAttention,
    LocationAwareAttention,
    LuongAttention,
    SingleHeadAttention,
    TutorialAttention,
)
from perceiver.attention.output import AttentionAux, AttentionOutput
from perceiver.attention.patterns import Pattern
from perceiver.attention.recurrent import BahdanauStep, LuongStep, TutorialStep
from perceiver.attention.stem import AttentionStem

__all__ = [
    "AXES",
    "Attention",
    "AttentionAux",
    "AttentionOutput",
    "AttentionStem",
    "BahdanauAttention",
    "BahdanauStep",
    "Context",
    "CosineAttention",
    "DifferentialAttention",
    "DotAttention",
    "HardAttention",
    "LinearAttention",
    "LocationAwareAttention",
    "LuongAttention",
    "LuongStep",
    "MultiHeadAttention",
    "Pattern",
    "ReinforceLoss",
    "RunningBaseline",
    "SampledChoices",
    "SingleHeadAttention",
    "StandAloneSelfAttention",
    "TutorialAttention",
    "TutorialStep",
    "doubly_stochastic_penalty",
    "reinforce_loss",
]
