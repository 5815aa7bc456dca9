"""Models in plain torch."""

from perceiver.models.blocks import AttentionBlock
from perceiver.models.decoder import Decoder, Heads, MeanPoolDecoder, QueryDecoder
from perceiver.models.encoder import PerceiverEncoder
from perceiver.models.perceiver import Perceiver
from perceiver.models.queries import InputQueries, LearnedQueries, PositionalQueries, Queries
from perceiver.models.recurrent import LSTMCell, RecurrentModel

__all__ = [
    "AttentionBlock",
    "Decoder",
    "Heads",
    "InputQueries",
    "LSTMCell",
    "LearnedQueries",
    "MeanPoolDecoder",
    "Perceiver",
    "PerceiverEncoder",
    "PositionalQueries",
    "Queries",
    "QueryDecoder",
    "RecurrentModel",
]
