"""Word errors of every precision on real speech."""
