"""Trackers of experiments, one file each; a run has a process of its own, since their packages wait for others."""
