"""From rows to batches: columns, splits, labels, collation and the data module."""
