"""Positions, axis 2 of attention: where queries and keys stand."""
