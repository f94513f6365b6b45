"""The training engine: one loop, packed batches, checkpoints."""
