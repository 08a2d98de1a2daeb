"""From logits to the continuations of every item."""
