"""Webhooks: where a project wants to be told of its jobs, what was sent there, and how a delivery is signed."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

EVENT_TYPES: Final = ("fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled")
SECRET: Final = "whsec_"

DeliveryStatus = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL that is told of events of these types."""

    id: str
    project_id: str
    created_at: float
    updated_at: float
    name: str
    url: str
    event_types: list[str]
    #: Sealed where the store has it, as is the one before.
    secret: str
    #: The secret before, which signs too until then.
    old_secret: str | None = None
    old_secret_until: float | None = None
    #: Why nothing is sent there any more; None while it is.
    disabled_reason: str | None = None

    def secrets(self, now: float) -> list[str]:
        """Return the secrets that sign at this time."""
        overlaps = self.old_secret is not None and self.old_secret_until is not None and now < self.old_secret_until
        return [self.secret, self.old_secret] if overlaps and self.old_secret is not None else [self.secret]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one endpoint, and how sending it goes."""

    #: The `webhook-id`, the same at every try, so that a receiver can tell a second one.
    id: str
    project_id: str
    endpoint_id: str
    event_id: str
    type: str
    data: dict[str, Any]
    #: Of the event.
    event_at: float
    #: When its time for tries began.
    created_at: float
    next_try_at: float
    status: DeliveryStatus = "pending"
    n_tries: int = 0
    tried_at: float | None = None
    status_code: int | None = None
    #: What went wrong at the last try.
    reason: str | None = None

    def event(self) -> dict[str, Any]:
        """Return the event object, the body of every try."""
        return {
            "object": "event",
            "id": self.event_id,
            "type": self.type,
            "created_at": int(self.event_at),
            "data": self.data,
        }


class DeliveryFailed(Exception):
    """A webhook did not arrive; the message says why."""


class WebhookSender(Protocol):
    """The way to the endpoints that projects name."""

    def check(self, url: str) -> None:
        """Look at a URL before it is kept; nothing is sent and nothing looked up.

        Raises:
            DeliveryFailed: nothing could ever be sent there.
        """
        ...

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a webhook and return the status of the answer; redirects are answers.

        Raises:
            DeliveryFailed: there was no answer in time, or nothing may be sent there.
        """
        ...


def signature(secrets: list[str], delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` (Standard Webhooks 1.0, "Signature scheme"): one for each secret."""
    told = f"{delivery_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_code(each, told)}" for each in secrets)


def _code(secret: str, told: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET))
    return base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()
