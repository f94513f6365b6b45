"""Where a URL that somebody else wrote may lead: to public addresses alone, looked up once.

A name is looked up once and the connection made to just the addresses that were checked, so that a second look-up cannot
lead elsewhere; the name stays in the request's `Host` and in what the certificate must be for.
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}

Lookup = Callable[[str, int], Sequence[str]]

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
#: Not the internet's, whatever release of Python says so: a cloud's metadata, relays, tunnels, documentation.
_OTHERS: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)


class NotAllowed(Exception):
    """A URL leads where nothing may be sent, or is none; the message says why."""


def lookup(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Say whether an address is the internet's, and not this machine's, its network's, or a way round to them."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST or ip.scope_id is not None:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in network for network in _OTHERS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: the checked addresses, and what to say there."""

    scheme: str
    addresses: list[str]
    port: int
    #: The name in the URL, for the certificate; and with its port, for the `Host` header.
    name: str
    host: str
    target: str

    def at(self, address: str) -> str:
        """Return the URL of one of the addresses."""
        return f"{self.scheme}://{_bracketed(address)}:{self.port}{self.target}"


@dataclass(frozen=True, slots=True)
class Guard:
    """Tells where URLs lead. `hosts` (`HOST`, or `HOST:PORT` for another port than usual) need not be public.

    `what` (`An image`) and `verb` (`fetched from`) are words of its refusals.
    """

    what: str
    verb: str
    hosts: frozenset[str]
    look_up: Lookup = lookup

    @classmethod
    def of(cls, what: str, verb: str, hosts: Collection[str], look_up: Lookup = lookup) -> "Guard":
        """Return a guard that lets these hosts pass, whatever their case."""
        return cls(what, verb, frozenset(host.lower() for host in hosts), look_up)

    def parts(self, url: str) -> tuple[str, str, int, str, bool]:
        """Return a URL's scheme, name, port, what follows, and whether its host is one of `hosts`; nothing is looked up.

        Raises:
            NotAllowed: it is no such URL, or of another port than usual.
            ValueError: it is no URL.
        """
        verb, _, _ = self.verb.partition(" ")
        parts = urlsplit(url)
        usual = PORTS.get(parts.scheme)
        if usual is None or not parts.hostname:
            raise NotAllowed(f"{self.what} is {verb} by an http or https URL")
        if parts.username is not None or parts.password is not None:
            raise NotAllowed(f"{self.what}'s URL holds no user and no password")
        name = parts.hostname if ":" in parts.hostname else _ascii(parts.hostname)
        port = parts.port if parts.port is not None else usual
        allowed = _host(name, port, usual).lower() in self.hosts
        if port != usual and not allowed:
            raise NotAllowed(f"{self.what} is {self.verb} port {usual}, not {port}")
        if not allowed and _is_inside(name):
            raise self._elsewhere(name)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return parts.scheme, name, port, target, allowed

    def place(self, url: str) -> Place:
        """Look the URL's host up and return its place, if every address of it may be called; this waits for the look-up.

        Raises:
            NotAllowed: it may not, or the host has no address.
            ValueError: it is no URL.
        """
        scheme, name, port, target, allowed = self.parts(url)
        try:
            found = self.look_up(name, port)
        except OSError as error:
            raise NotAllowed(f"{name} has no address ({error.strerror})") from error
        if not found or not (allowed or all(map(is_public, found))):
            raise self._elsewhere(name)
        return Place(scheme, list(found), port, name, _host(name, port, PORTS[scheme]), target)

    def _elsewhere(self, name: str) -> NotAllowed:
        what = self.what[0].lower() + self.what[1:]
        return NotAllowed(f"{name} is not on the public internet, and {what} is {self.verb} nowhere else")


def _ascii(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError as error:
        raise NotAllowed(f"{name[:100]!a} is no name of a host") from error


def _is_inside(name: str) -> bool:
    """Say whether a name alone tells that it leads inside: this machine, or an address, however it is written."""
    if f".{name.lower().rstrip('.')}".endswith(".localhost"):
        return True
    try:
        return not is_public(name if ":" in name else socket.inet_ntoa(socket.inet_aton(name)))
    except OSError:  # no address, and so to be looked up
        return False


def _host(name: str, port: int, usual: int) -> str:
    return _bracketed(name) if port == usual else f"{_bracketed(name)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
