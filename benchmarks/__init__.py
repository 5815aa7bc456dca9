"""Measurements of this project and of the other public Perceivers, side by side."""
