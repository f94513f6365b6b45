"""Training beside TRL: the three methods, and several jobs on one base."""
