"""The demonstration that `tunesmith demo` runs: its data, its steps, its screen."""
