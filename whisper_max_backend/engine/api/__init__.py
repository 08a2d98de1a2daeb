"""What callers pass to the engine, and what they get from it."""
