"""Data sets and file layouts as Lightning data modules; each yields `perceiver.types.Batch`."""
