"""The sampling engine: a process of its own that keeps one base resident and answers for many adapters."""
