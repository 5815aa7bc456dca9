"""Published and generated data sets, one a file."""
