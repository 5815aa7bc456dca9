"""Structured attention: keys and values never exist, and positions stay apart from content."""
