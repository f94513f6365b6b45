"""The command line: thin clients of the public API, and the verbs that start a server."""
