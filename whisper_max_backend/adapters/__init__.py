"""Live speech in other programs. A module needs its program, and is imported by its name."""
