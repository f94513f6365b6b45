"""Images by URL, the one way out that a grader's text can name: public addresses alone, with caps, every redirect checked.

A name is looked up once and the connection made to just the addresses that were checked, so that a second look-up cannot
lead elsewhere; the name stays in the request's `Host` and in what the certificate must be for.
"""

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx2
from anyio import CapacityLimiter, to_thread

from tunesmith.domain.ports import PictureRefused

#: Caps on an image: its bytes, the seconds for all of it, how often it may have moved; and on look-ups, at once.
N_MAX_BYTES: Final = 20 * 1024 * 1024
LONGEST_S: Final = 20.0
N_MAX_REDIRECTS: Final = 3
N_LOOKUPS: Final = 8
PORTS: Final = {"http": 80, "https": 443}
KINDS: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: What a server may say that an image is, where it does not know better.
UNTOLD: Final = ("", "application/octet-stream", "binary/octet-stream")
_N_SHOWN: Final = 200
OK: Final = 200

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
class _Place:
    """Where an image is: the checked addresses, and what to say there."""

    scheme: str
    addresses: list[str]
    port: int
    #: The name in the URL, for the certificate; and with its port, for the `Host` header.
    name: str
    host: str
    target: str

    def at(self, address: str) -> str:
        return f"{self.scheme}://{_bracketed(address)}:{self.port}{self.target}"


class GuardedPictures:
    """The `Pictures` port. `hosts` (`HOST`, or `HOST:PORT` for another port than usual) need not be public."""

    def __init__(self, *, hosts: Collection[str] = (), look_up: Lookup = lookup, longest_s: float = LONGEST_S) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._look_up = look_up
        self._longest_s = longest_s
        self._lookups = CapacityLimiter(N_LOOKUPS)
        self._trust: ssl.SSLContext | None = None

    async def fetch(self, url: str, *, n_max_bytes: int = N_MAX_BYTES) -> str:
        """Return the image as a `data:` URL, also one that came as such.

        Raises:
            PictureRefused: it is not fetched, or it is no image of a known format.
        """
        n_max = min(n_max_bytes, N_MAX_BYTES)
        if url[:5].lower() == "data:":
            return _as_url(_inline(url, n_max))
        try:
            async with asyncio.timeout(self._longest_s):
                for _ in range(N_MAX_REDIRECTS + 1):
                    moved, content = await self._once(await self._vetted(url), n_max)
                    if moved is None:
                        return _as_url(content)
                    url = urljoin(url, moved)
        except TimeoutError as error:
            raise PictureRefused(f"The image took longer than {self._longest_s:g} s: {url[:_N_SHOWN]}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise PictureRefused(
                f"The image cannot be fetched ({str(error) or type(error).__name__}): {url[:_N_SHOWN]}"
            ) from error
        except PictureRefused as refused:
            raise PictureRefused(f"{refused}: {url[:_N_SHOWN]}") from refused
        raise PictureRefused(f"The image moved more than {N_MAX_REDIRECTS} times: {url[:_N_SHOWN]}")

    async def _vetted(self, url: str) -> _Place:
        """Look the URL's host up and return its place, if every address of it may be fetched from.

        Raises:
            PictureRefused: it may not, or it is no URL of an image.
            ValueError: it is no URL.
        """
        parts = urlsplit(url)
        usual = PORTS.get(parts.scheme)
        if usual is None or not parts.hostname:
            raise PictureRefused("An image is fetched by an http or https URL")
        if parts.username is not None or parts.password is not None:
            raise PictureRefused("An image's URL holds no user and no password")
        name = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
        port = parts.port if parts.port is not None else usual
        host = _bracketed(name) if port == usual else f"{_bracketed(name)}:{port}"
        allowed = host.lower() in self._hosts
        if port != usual and not allowed:
            raise PictureRefused(f"An image is fetched from port {usual}, not {port}")
        try:
            found = await to_thread.run_sync(self._look_up, name, port, abandon_on_cancel=True, limiter=self._lookups)
        except OSError as error:
            raise PictureRefused(f"{name} has no address ({error.strerror})") from error
        if not found or not (allowed or all(map(is_public, found))):
            raise PictureRefused(f"{name} is not on the public internet, and an image is fetched from nowhere else")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _Place(parts.scheme, list(found), port, name, host, target)

    async def _once(self, place: _Place, n_max: int) -> tuple[str | None, bytes]:
        """Return where the image has moved, or the image; the addresses are tried in their order."""
        failure: httpx2.HTTPError | None = None
        for address in place.addresses:
            try:
                return await self._from(place, address, n_max)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def _from(self, place: _Place, address: str, n_max: int) -> tuple[str | None, bytes]:
        if self._trust is None:
            self._trust = httpx2.create_ssl_context()
        headers = {"host": place.host, "accept": ", ".join(KINDS), "accept-encoding": "identity"}
        async with (
            # a client for each: a connection that was opened for one name must not serve another of the same address
            httpx2.AsyncClient(verify=self._trust, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", place.at(address), headers=headers, extensions={"sni_hostname": place.name}) as answer,
        ):
            if answer.has_redirect_location:
                return answer.headers["location"], b""
            if answer.status_code != OK:
                raise PictureRefused(f"The image's server answers {answer.status_code}")
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in (*KINDS, *UNTOLD):
                raise PictureRefused(f"The image is said to be {kind[:_N_SHOWN]}, not one of {', '.join(KINDS)}")
            if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise PictureRefused("The image comes compressed, which was not asked for")
            content = bytearray()
            async for part in answer.aiter_raw():
                content += part
                if len(content) > n_max:
                    raise PictureRefused(f"The image is larger than {n_max} bytes")
        return None, bytes(content)


def _inline(url: str, n_max: int) -> bytes:
    """Return what a `data:` URL holds."""
    head, comma, text = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise PictureRefused("An image's data: URL is data:image/…;base64,…")
    if len(text) > (n_max + 2) // 3 * 4:
        raise PictureRefused(f"The image is larger than {n_max} bytes")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise PictureRefused("The image's data: URL is no base64") from error


def _as_url(content: bytes) -> str:
    return f"data:{_kind(content)};base64,{base64.b64encode(content).decode()}"


def _kind(content: bytes) -> str:
    """Return what an image is by its first bytes, whatever it was said to be."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    raise PictureRefused(f"What was fetched is none of {', '.join(KINDS)} by its first bytes")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
