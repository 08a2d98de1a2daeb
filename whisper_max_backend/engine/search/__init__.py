"""Decoding: rules, beam search, greedy search and sampling, whatever runs the steps."""
