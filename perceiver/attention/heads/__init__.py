"""Heads, axis 5 of attention: the projections."""
