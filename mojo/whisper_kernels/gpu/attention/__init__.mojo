"""Attention of the decoder: which kernel takes it depends on the type and the GPU."""
