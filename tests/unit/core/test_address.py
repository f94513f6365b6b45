"""Addresses: what of one is never shown."""

import pytest

from tunesmith.core.address import is_loopback, shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:p%40ss@ml.example.com:5000/a?b=c", "https://me:…@ml.example.com:5000/a?b=c"),
        ("https://me:p@ss@ml.example.com", "https://me:…@ml.example.com"),
        ("postgresql://me:pw@db/x?sslmode=require&password=pw", "postgresql://me:…@db/x?sslmode=require&password=…"),
        ("HTTPS://tok3n@ml.example.com", "HTTPS://…@ml.example.com"),
        ("https://x/?api_key=k&run=1", "https://x/?api_key=…&run=1"),
        (
            "API request to http://me:pw@ml/api failed with (http://ml:80/): a@b",
            "API request to http://me:…@ml/api failed with (http://ml:80/): a@b",
        ),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("http://localhost:5000/@me", "http://localhost:5000/@me"),
        ("8000", "8000"),
    ],
)
def test_passwords_and_tokens_are_not_shown(text: str, told: str) -> None:
    assert shown(text) == told


@pytest.mark.parametrize(("host", "loops"), [("localhost", True), ("127.3.2.1", True), ("[::1]", True), ("10.0.0.1", False)])
def test_this_machine_speaking_to_itself(host: str, *, loops: bool) -> None:
    assert is_loopback(host) is loops
