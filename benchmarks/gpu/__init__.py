"""The GPU: every kernel against float64, tokens against the CPU, then times."""

HOST_TARGET = "x86-64-v3"
"""What the host's part of artifacts is compiled for: every machine with a GPU runs it."""
