"""A model on a GPU: its weights, its graphs, its decoder."""
