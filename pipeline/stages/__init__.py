"""A stage is one pass over a volume: inputs, outputs, a grid, and what to do with one block."""
