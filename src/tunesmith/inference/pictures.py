"""Images by URL, a way out that a grader's text can name: public addresses alone, with caps, every redirect checked."""

import asyncio
import base64
import ssl
from collections.abc import Collection
from typing import Final
from urllib.parse import urljoin

import httpx2
from anyio import CapacityLimiter, to_thread

from tunesmith.core.internet import Guard, Lookup, NotAllowed, Place, lookup
from tunesmith.domain.ports import PictureRefused

#: Caps on an image: its bytes, the seconds for all of it, how often it may have moved; and on look-ups, at once.
N_MAX_BYTES: Final = 20 * 1024 * 1024
LONGEST_S: Final = 20.0
N_MAX_REDIRECTS: Final = 3
N_LOOKUPS: Final = 8
KINDS: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: What a server may say that an image is, where it does not know better.
UNTOLD: Final = ("", "application/octet-stream", "binary/octet-stream")
_N_SHOWN: Final = 200
OK: Final = 200


class GuardedPictures:
    """The `Pictures` port. `hosts` (`HOST`, or `HOST:PORT` for another port than usual) need not be public."""

    def __init__(self, *, hosts: Collection[str] = (), look_up: Lookup = lookup, longest_s: float = LONGEST_S) -> None:
        self._guard = Guard.of("An image", "fetched from", hosts, look_up)
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

    async def _vetted(self, url: str) -> Place:
        """Return where a URL leads.

        Raises:
            PictureRefused: it is not to be fetched from there.
            ValueError: it is no URL.
        """
        try:
            return await to_thread.run_sync(self._guard.place, url, abandon_on_cancel=True, limiter=self._lookups)
        except NotAllowed as error:
            raise PictureRefused(str(error)) from error

    async def _once(self, place: Place, n_max: int) -> tuple[str | None, bytes]:
        """Return where the image has moved, or the image; the addresses are tried in their order."""
        failure: httpx2.HTTPError | None = None
        for address in place.addresses:
            try:
                return await self._from(place, address, n_max)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def _from(self, place: Place, address: str, n_max: int) -> tuple[str | None, bytes]:
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
