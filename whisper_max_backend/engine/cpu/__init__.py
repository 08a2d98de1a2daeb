"""A model on the CPU: its weights, its graphs, its decoder."""
