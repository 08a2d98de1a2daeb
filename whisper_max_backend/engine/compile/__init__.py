"""Graphs into artifacts: compiled once, kept on disk, loaded by sessions."""
