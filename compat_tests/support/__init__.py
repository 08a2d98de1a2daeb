"""What tests and benchmarks both need: models, recordings, and slower ways to the same answers."""
