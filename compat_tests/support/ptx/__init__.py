"""Executes kernels that only a GPU has, in NumPy, from the PTX that they are compiled to."""
