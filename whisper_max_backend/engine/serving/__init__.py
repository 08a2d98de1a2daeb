"""Many requests at once: workers, batches of steps, the model that callers share."""
