"""Perceiver-style multimodal models: attention blocks, adapters, models and Lightning tasks."""

__version__ = "0.1.0"
