"""Lightning callbacks: what a run reports about itself."""

from perceiver.callbacks.averaging import WarmedAverage, WarmedModel
from perceiver.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from perceiver.callbacks.checkpoint_io import WholeCheckpointIO
from perceiver.callbacks.gradient_norm import GradientNorm
from perceiver.callbacks.metrics_file import MetricsFile
from perceiver.callbacks.padding import PaddingShare
from perceiver.callbacks.progress import ProgressBar
from perceiver.callbacks.reports import ConfusionMatrix, PredictionTable
from perceiver.callbacks.stopping import FiniteLoss, Interrupted, StopBySignal
from perceiver.callbacks.throughput import Throughput

__all__ = [
    "BestCheckpoint",
    "ConfusionMatrix",
    "FiniteLoss",
    "GradientNorm",
    "Interrupted",
    "LastCheckpoint",
    "MetricsFile",
    "PaddingShare",
    "PredictionTable",
    "ProgressBar",
    "StopBySignal",
    "Throughput",
    "WarmedAverage",
    "WarmedModel",
    "WholeCheckpointIO",
]
