"""The figures of a job's life: cancel, kill, pause and adoption, seen from outside."""
