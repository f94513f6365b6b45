"""One small process per attempt that owns the attempt's process tree; standard library only."""
