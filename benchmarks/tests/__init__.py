"""Tests of the benchmarks themselves, which `pytest` runs with the others."""
