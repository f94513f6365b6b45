"""Schemathesis over the server's own OpenAPI description, for `make fuzz`; no part of the tests that `make test` runs."""
