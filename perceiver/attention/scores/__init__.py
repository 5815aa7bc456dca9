"""Scores, axis 1 of attention: how well a key matches a query."""
