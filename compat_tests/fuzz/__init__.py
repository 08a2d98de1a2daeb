"""Random and hostile input, in bulk."""
