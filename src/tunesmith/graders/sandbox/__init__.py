"""The sandbox for `python` graders: a stranger's Python, one confined process a call."""
