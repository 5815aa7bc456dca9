"""Numerics that attention, adapters and models share."""
