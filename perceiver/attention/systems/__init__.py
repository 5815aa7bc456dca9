"""Named systems: attention as its papers wire it, ready to use."""
