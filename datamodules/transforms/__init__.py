"""Transforms that no library has: callables on one modality's tensor.

They draw from torch's global generator, as torchvision's do, and are named in the config's
`augment` beside those.
"""
