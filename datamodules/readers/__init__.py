"""Files → tensors, one modality a file, with the options that describe the modality."""
