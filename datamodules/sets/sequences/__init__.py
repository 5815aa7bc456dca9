"""Sequence problems of the memory papers, one a file."""
