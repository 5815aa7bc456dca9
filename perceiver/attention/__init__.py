"""Attention as one equation with named axes; needs torch alone."""

from perceiver.attention.attention import Attention
from perceiver.attention.catalogue import AXES
from perceiver.attention.context import Context
from perceiver.attention.output import AttentionAux, AttentionOutput
from perceiver.attention.patterns import Pattern
from perceiver.attention.systems.losses import (
    ReinforceLoss,
    RunningBaseline,
    SampledChoices,
    doubly_stochastic_penalty,
    reinforce_loss,
)
from perceiver.attention.systems.multi_head import (
    CosineAttention,
    DifferentialAttention,
    LinearAttention,
    MultiHeadAttention,
    StandAloneSelfAttention,
)
from perceiver.attention.systems.recurrent import BahdanauStep, LuongStep, TutorialStep
from perceiver.attention.systems.recurrent_decoders import (
    BahdanauAttention,
    DotAttention,
    HardAttention,
    LocationAwareAttention,
    LuongAttention,
    SingleHeadAttention,
    TutorialAttention,
)
from perceiver.attention.systems.stem import AttentionStem

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
