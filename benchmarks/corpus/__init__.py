"""Corpora on Ray: deaths of machines, damaged files, speed, growth and large plans."""
