"""Models in plain torch."""

from perceiver.models.blocks import AttentionBlock
from perceiver.models.decoder import Decoder, LearnedQueries, MeanPoolDecoder, Queries, QueryDecoder
from perceiver.models.encoder import PerceiverEncoder
from perceiver.models.perceiver import Perceiver

__all__ = [
    "AttentionBlock",
    "Decoder",
    "LearnedQueries",
    "MeanPoolDecoder",
    "Perceiver",
    "PerceiverEncoder",
    "Queries",
    "QueryDecoder",
]
