"""A model that stands in for the card: kernels compiled without a GPU, and the least they take."""
