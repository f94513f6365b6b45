"""The database: tables and one file of queries per noun; every query takes a scope."""
