"""Places where attempts run, behind the Executor port, one file each."""
