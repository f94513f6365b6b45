"""The fuse box of the compute side: builds the adapters a worker needs from its task."""
