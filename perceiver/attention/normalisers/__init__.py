"""Normalisers, axis 4 of attention: from scores to weights. A function each, and its module."""

from perceiver.attention.normalisers.hard import (
    Argmax,
    GumbelST,
    Reinforce,
    argmax,
    categorical,
    gumbel_st,
)
from perceiver.attention.normalisers.normaliser import Normalised, Normaliser, logsumexp
from perceiver.attention.normalisers.soft import (
    Relu,
    Sigmoid,
    Softmax,
    Sum,
    TopK,
    Unnormalised,
    relu,
    sigmoid,
    softmax,
    sum_to_one,
    topk,
)
from perceiver.attention.normalisers.sparse import Entmax, Sparsemax, entmax, sparsemax

__all__ = [
    "Argmax",
    "Entmax",
    "GumbelST",
    "Normalised",
    "Normaliser",
    "Reinforce",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Sparsemax",
    "Sum",
    "TopK",
    "Unnormalised",
    "argmax",
    "categorical",
    "entmax",
    "gumbel_st",
    "logsumexp",
    "relu",
    "sigmoid",
    "softmax",
    "sparsemax",
    "sum_to_one",
    "topk",
]
