"""Stores of bytes behind the Blobs port, one file each."""
