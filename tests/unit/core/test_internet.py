"""URLs that somebody else wrote: what their words alone tell, before anything is looked up."""

import pytest

from tunesmith.core.internet import Guard, NotAllowed


def guard(*hosts: str) -> Guard:
    def nobody(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host}:{port} is looked up")

    return Guard.of("A webhook", "delivered to", hosts, nobody)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "10.0.0.1", "169.254.169.254", "①②⑦.⓪.⓪.①",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[fd00::1]", "[fe80::1%25eth0]",
        "localhost", "LocalHost.", "db.localhost",
    ],
)  # fmt: skip
def test_an_address_of_the_inside_is_known_without_a_look_up(host: str) -> None:
    with pytest.raises(NotAllowed, match="is not on the public internet, and a webhook is delivered to nowhere else"):
        guard().parts(f"https://{host}/x")


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "localhost.example.com", "notlocalhost", "1.example"])
def test_what_may_be_outside_is_for_the_look_up_to_say(host: str) -> None:
    assert guard().parts(f"https://{host}/x")[1] == host.strip("[]")


def test_a_host_that_is_named_may_be_inside() -> None:
    assert guard("localhost:9000", "[::1]").parts("http://localhost:9000/x")[4]
    assert guard("localhost:9000", "[::1]").parts("http://[::1]/x")[4]


@pytest.mark.parametrize("host", ["a" * 64, "...", "a..b"])
def test_what_is_no_name_is_told_so(host: str) -> None:
    with pytest.raises(NotAllowed, match="is no name of a host"):
        guard().parts(f"https://{host}/")
