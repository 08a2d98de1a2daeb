"""Tests that hold the package to the behaviour of the reference."""
