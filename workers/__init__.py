"""Who computes it, where, and how it is watched."""
