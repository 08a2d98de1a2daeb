"""What requests keep between steps: their KV cache, and what each asks of a step."""
