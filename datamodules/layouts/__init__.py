"""Layouts of people's own files: tables, folders, shards."""
