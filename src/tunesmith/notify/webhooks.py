"""Webhooks over HTTP: one POST to an address of the public internet, within seconds, redirects not followed."""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Final

import httpx2
from anyio import CapacityLimiter, to_thread

from tunesmith.core.internet import Guard, Lookup, NotAllowed, Place, lookup
from tunesmith.domain.webhook import DeliveryFailed

#: How long an endpoint may take to answer, its look-up included; and look-ups at once.
LONGEST_S: Final = 10.0
N_LOOKUPS: Final = 8


class GuardedWebhooks:
    """The `WebhookSender` port. `hosts` need not be public, nor speak https."""

    def __init__(self, *, hosts: Collection[str] = (), look_up: Lookup = lookup, longest_s: float = LONGEST_S) -> None:
        self._guard = Guard.of("A webhook", "delivered to", hosts, look_up)
        self._longest_s = longest_s
        self._lookups = CapacityLimiter(N_LOOKUPS)
        self._trust: ssl.SSLContext | None = None
        self._agent = f"Tunesmith/{version('tunesmith')}"

    def check(self, url: str) -> None:
        """Look at a URL before it is kept; nothing is sent and nothing looked up.

        Raises:
            DeliveryFailed: nothing could ever be sent there.
        """
        if " " in url or not url.isprintable():
            raise DeliveryFailed("A webhook's URL has no blanks and no control characters: write them as %20 and the like")
        try:
            scheme, name, _, _, allowed = self._guard.parts(url)
        except (NotAllowed, ValueError) as error:
            raise DeliveryFailed(str(error)) from error
        if scheme != "https" and not allowed:
            raise DeliveryFailed(f"A webhook is delivered by https; {name} is none of the hosts that may do without")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a webhook and return the status of the answer; redirects are answers.

        Raises:
            DeliveryFailed: there was no answer in time, or nothing may be sent there.
        """
        self.check(url)
        try:
            async with asyncio.timeout(self._longest_s):
                place = await to_thread.run_sync(self._guard.place, url, abandon_on_cancel=True, limiter=self._lookups)
                return await self._once(place, body, headers)
        except TimeoutError as error:
            raise DeliveryFailed(f"the endpoint took longer than {self._longest_s:g} s") from error
        except NotAllowed as error:
            raise DeliveryFailed(str(error)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise DeliveryFailed(f"the endpoint cannot be reached ({str(error) or type(error).__name__})") from error

    async def _once(self, place: Place, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status that the first of the addresses which can be connected to answers."""
        failure: httpx2.HTTPError | None = None
        for address in place.addresses:
            try:
                return await self._to(place, address, body, headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def _to(self, place: Place, address: str, body: bytes, headers: Mapping[str, str]) -> int:
        if self._trust is None:
            self._trust = httpx2.create_ssl_context()
        told = {**headers, "host": place.host, "user-agent": self._agent}
        async with (
            # a client for each: a connection that was opened for one name must not serve another of the same address
            httpx2.AsyncClient(verify=self._trust, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", place.at(address), content=body, headers=told, extensions={"sni_hostname": place.name}
            ) as answer,
        ):
            return answer.status_code  # what else it says is not read
