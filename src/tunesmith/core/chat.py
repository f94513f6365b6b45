"""Chat messages and tools as the wire has them, checked once for training rows and chat completions alike."""
