"""The fuse box of the server: the only file that names concrete adapters."""
