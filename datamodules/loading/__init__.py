"""From a split to a stream of batches: order, workers and caches."""
