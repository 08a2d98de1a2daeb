"""The GPU: every kernel against float64, tokens against the CPU, then times."""
