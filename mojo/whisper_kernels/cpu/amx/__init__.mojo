"""Products by Intel AMX, a unit that multiplies tiles."""
