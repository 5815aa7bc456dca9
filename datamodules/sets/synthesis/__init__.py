"""Inputs made to a public standard rather than read from files."""
