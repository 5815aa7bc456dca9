"""Scores, axis 1 of attention: how well a key matches a query."""

from perceiver.attention.scores.location import Location, LocationAware, LocationState
from perceiver.attention.scores.pairwise import (
    Additive,
    Cosine,
    Dot,
    DotProductScore,
    FeatureDot,
    Folded,
    General,
    LinearScore,
    NegL2,
    Score,
)

__all__ = [
    "Additive",
    "Cosine",
    "Dot",
    "DotProductScore",
    "FeatureDot",
    "Folded",
    "General",
    "LinearScore",
    "Location",
    "LocationAware",
    "LocationState",
    "NegL2",
    "Score",
]
