"""How late and how right live text is, and what it takes."""
