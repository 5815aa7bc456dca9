"""Models in plain torch."""

from perceiver.models.blocks import AttentionBlock
from perceiver.models.decoder import Decoder, LearnedQueries, MeanPoolDecoder, Queries, QueryDecoder
from perceiver.models.encoder import PerceiverEncoder
from perceiver.models.perceiver import Perceiver
from perceiver.models.recurrent import LSTMCell, RecurrentModel

__all__ = [
    "AttentionBlock",
    "Decoder",
    "LSTMCell",
    "LearnedQueries",
    "MeanPoolDecoder",
    "Perceiver",
    "PerceiverEncoder",
    "Queries",
    "QueryDecoder",
    "RecurrentModel",
]
