"""Products by the tile unit of a processor (Intel AMX)."""
