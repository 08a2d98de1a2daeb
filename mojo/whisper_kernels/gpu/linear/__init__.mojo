"""Linear layers: which kernel takes them depends on the rows and the types."""
