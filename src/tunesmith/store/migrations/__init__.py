"""Migrations of the database, one file each under `versions/`; a new one gets the next number."""
