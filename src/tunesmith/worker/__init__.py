"""The compute side of an attempt: one process, one task."""
