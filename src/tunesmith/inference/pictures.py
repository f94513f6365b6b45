"""Pictures by URL, the one way out that a grader's text can name: public addresses alone, with caps, every redirect checked.

The address is looked up once and the connection made to just that address, so that a second look-up cannot lead elsewhere.
"""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx2

#: Caps on a picture: its bytes, the seconds for all of it, and how often it may have moved.
N_MAX_BYTES: Final = 20 * 1024 * 1024
LONGEST_S: Final = 20.0
N_MAX_REDIRECTS: Final = 3
KINDS: Final = ("image/png", "image/jpeg", "image/webp", "image/gif")
PORTS: Final = (None, 80, 443)

Lookup = Callable[[str, int], Sequence[str]]


class PictureRefused(Exception):
    """A URL that is not fetched, or gives no picture; the message says why."""


def lookup(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Say whether an address is the internet's, and not this machine's, its network's, or somebody's way round to them."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Pictures:
    """Fetches pictures and returns them as `data:` URLs."""

    def __init__(self, *, look_up: Lookup = lookup, allowed: Callable[[str], bool] = is_public) -> None:
        self._look_up = look_up
        self._allowed = allowed

    async def fetch(self, url: str) -> str:
        """Return the picture as a `data:` URL; one that is a `data:` URL already is returned as it is.

        Raises:
            PictureRefused: it is not fetched, or it is no picture.
        """
        if url.startswith("data:"):
            return url
        try:
            async with asyncio.timeout(LONGEST_S), httpx2.AsyncClient(trust_env=False, follow_redirects=False) as client:
                for _ in range(N_MAX_REDIRECTS + 1):
                    moved, picture = await self._once(client, url)
                    if picture is not None:
                        return picture
                    url = moved
        except TimeoutError as error:
            raise PictureRefused(f"{url[:200]} took longer than {LONGEST_S:.0f} s") from error
        except httpx2.HTTPError as error:
            raise PictureRefused(f"{url[:200]} cannot be fetched: {error}") from error
        raise PictureRefused(f"{url[:200]} moved more than {N_MAX_REDIRECTS} times")

    async def _once(self, client: httpx2.AsyncClient, url: str) -> tuple[str, str | None]:
        """Return where the picture has moved, or the picture."""
        there, host = await self._vetted(url)
        request = client.build_request(
            "GET",
            there,
            headers={"host": urlsplit(url).netloc, "accept": ", ".join(KINDS)},
            extensions={"sni_hostname": host},
        )
        answer = await client.send(request, stream=True)
        try:
            if answer.is_redirect:
                return urljoin(url, answer.headers.get("location", "")), None
            if answer.status_code != httpx2.codes.OK:
                raise PictureRefused(f"{url[:200]} answers {answer.status_code}")
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in KINDS:
                raise PictureRefused(f"{url[:200]} is {kind or 'of no type'}, not {', '.join(KINDS)}")
            content = bytearray()
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > N_MAX_BYTES:
                    raise PictureRefused(f"{url[:200]} is larger than {N_MAX_BYTES} bytes")
        finally:
            await answer.aclose()
        return url, f"data:{kind};base64,{base64.b64encode(content).decode()}"

    async def _vetted(self, url: str) -> tuple[str, str]:
        """Return the URL with a checked address in place of its host, and the host."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise PictureRefused(f"{url[:200]} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise PictureRefused(f"{url[:200]} is no http or https URL without credentials")
        if port not in PORTS and self._allowed is is_public:
            raise PictureRefused(f"{url[:200]} has a port of its own, and only 80 and 443 are fetched from")
        host, number = parts.hostname, port or (443 if parts.scheme == "https" else 80)
        try:
            addresses = await asyncio.to_thread(self._look_up, host, number)
        except OSError as error:
            raise PictureRefused(f"{host} has no address: {error}") from error
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise PictureRefused(f"{host} is not on the public internet, and nothing else is fetched from")
        address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        return parts._replace(netloc=f"{address}:{number}").geturl(), host
