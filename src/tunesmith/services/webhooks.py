"""Webhook endpoints: made, changed, tested and deleted by a project; what was sent to them, and sending it again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.ids import Ids
from tunesmith.core.secrets import FILE, SecretLost, Secrets
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.webhook import EVENT_TYPES, Delivery, DeliveryFailed, Endpoint, WebhookSender, signature
from tunesmith.store import webhooks
from tunesmith.store.session import Database

#: How long the secret before may sign too, and how long the log is kept.
OVERLAP_S: Final = 24 * 3600
LOG_S: Final = 30 * 24 * 3600
N_MAX_ENDPOINTS: Final = 100
N_SWEPT: Final = 500
_EVERYWHERE: Final = Everywhere("retention is the server's own work")

log = structlog.get_logger()


class EndpointNotFound(NotFound):
    """No such webhook endpoint (404)."""

    param = "webhook_endpoint_id"

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"No such webhook endpoint: {endpoint_id}")


class DeliveryNotFound(NotFound):
    """No such delivery (404)."""

    param = "delivery_id"

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"No such webhook delivery: {delivery_id}")


class Webhooks:
    """The webhook endpoints of every project; the store has their secrets sealed, whoever asks here gets them opened."""

    def __init__(self, *, db: Database, clock: Clock, ids: Ids, sender: WebhookSender, secrets: Secrets) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._sender = sender
        self._secrets = secrets

    def seal(self) -> int:
        """Seal the secrets that an older release kept in clear; return of how many endpoints."""
        with self._db.read() as tx:
            if not webhooks.unsealed(tx, _EVERYWHERE):
                return 0
        with self._db.begin() as tx:
            found = webhooks.unsealed(tx, _EVERYWHERE)
            for each in map(self._opened, found):  # one of the two may be sealed
                old = None if each.old_secret is None else self._secrets.seal(each.old_secret)
                webhooks.change_endpoint(tx, _EVERYWHERE, each.id, secret=self._secrets.seal(each.secret), old_secret=old)
        log.info("webhook.secrets_sealed", endpoints=len(found))
        return len(found)

    def create(self, scope: Project, *, name: str, url: str, event_types: Sequence[str]) -> Endpoint:
        """Make an endpoint, with a secret of its own.

        Raises:
            InvalidRequest: nothing can be sent to the URL, an event type is none, or there are too many endpoints.
        """
        now = self._clock.now()
        endpoint = Endpoint(
            id=self._ids.webhook_endpoint(),
            project_id=scope.project_id,
            created_at=now,
            updated_at=now,
            name=name,
            url=self._vetted_url(url),
            event_types=_vetted_types(event_types),
            secret=self._ids.webhook_secret(),
        )
        with self._db.begin() as tx:
            if webhooks.count_endpoints(tx, scope) >= N_MAX_ENDPOINTS:
                raise InvalidRequest(f"A project has at most {N_MAX_ENDPOINTS} webhook endpoints: delete one first.")
            webhooks.add_endpoint(tx, scope, replace(endpoint, secret=self._secrets.seal(endpoint.secret)))
        log.info("webhook.endpoint_created", endpoint=endpoint.id)
        return endpoint

    def get(self, scope: Project, endpoint_id: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            EndpointNotFound: the project has no such endpoint.
        """
        with self._db.read() as tx:
            return self._opened(_found(webhooks.get_endpoint(tx, scope, endpoint_id), endpoint_id))

    def page(self, scope: Project, *, after: str | None, limit: int) -> tuple[list[Endpoint], bool]:
        """Return endpoints, newest first, and whether there are more.

        Raises:
            InvalidRequest: `after` names no endpoint.
        """
        with self._db.read() as tx:
            found, has_more = webhooks.endpoints_page(tx, scope, after=after, limit=limit)
        return [self._opened(each) for each in found], has_more

    def update(
        self, scope: Project, endpoint_id: str, *, name: str | None, url: str | None, event_types: Sequence[str] | None
    ) -> Endpoint:
        """Change what is given, and send to the endpoint again if it was disabled.

        Raises:
            EndpointNotFound: the project has no such endpoint.
            InvalidRequest: as for `create`.
        """
        changes = {
            "name": name,
            "url": None if url is None else self._vetted_url(url),
            "event_types": None if event_types is None else _vetted_types(event_types),
        }
        changes = {field: value for field, value in changes.items() if value is not None}
        with self._db.begin() as tx:
            known = _found(webhooks.get_endpoint(tx, scope, endpoint_id), endpoint_id)
            changes = {field: value for field, value in changes.items() if getattr(known, field) != value}
            if not changes and known.disabled_reason is None:
                return self._opened(known)
            at = self._clock.now()
            changed = webhooks.change_endpoint(tx, scope, known.id, **changes, disabled_reason=None, updated_at=at)
            return self._opened(_found(changed, endpoint_id))

    def delete(self, scope: Project, endpoint_id: str) -> None:
        """Delete an endpoint, with what was and what is to be sent to it.

        Raises:
            EndpointNotFound: the project has no such endpoint.
        """
        with self._db.begin() as tx:
            if not webhooks.delete_endpoint(tx, scope, endpoint_id):
                raise EndpointNotFound(endpoint_id)
        log.info("webhook.endpoint_deleted", endpoint=endpoint_id)

    def rotate(self, scope: Project, endpoint_id: str, *, keep_old: bool) -> Endpoint:
        """Give an endpoint a new secret; with `keep_old` the one before signs beside it for a day.

        Raises:
            EndpointNotFound: the project has no such endpoint.
        """
        now = self._clock.now()
        with self._db.begin() as tx:
            known = _found(webhooks.get_endpoint(tx, scope, endpoint_id), endpoint_id)
            changed = webhooks.change_endpoint(
                tx,
                scope,
                endpoint_id,
                secret=self._secrets.seal(self._ids.webhook_secret()),
                old_secret=known.secret if keep_old else None,
                old_secret_until=now + OVERLAP_S if keep_old else None,
                updated_at=now,
            )
        log.info("webhook.secret_rotated", endpoint=endpoint_id)
        return self._opened(_found(changed, endpoint_id))

    async def test(self, endpoint: Endpoint, event_type: str) -> int:
        """Send a sample event at once and return the status of the answer; it is not kept and not sent again.

        Raises:
            InvalidRequest: the type is none, or there is no answer.
        """
        _vetted_types([event_type])
        now = self._clock.now()
        data = {"id": "ftjob-abc123"}
        sample = Delivery(
            self._ids.webhook(), endpoint.project_id, endpoint.id, self._ids.outbox(), event_type, data, now, now, now
        )
        try:
            return await self._sender.post(endpoint.url, *signed(endpoint, sample, now))
        except DeliveryFailed as error:
            raise InvalidRequest(f"The event could not be delivered: {error}.", param="webhook_endpoint_id") from error

    def deliveries(self, scope: Project, endpoint_id: str, *, limit: int) -> tuple[list[Delivery], bool]:
        """Return what was and is to be sent to an endpoint, the newest event first, and whether there is more.

        Raises:
            EndpointNotFound: the project has no such endpoint.
        """
        with self._db.read() as tx:
            _found(webhooks.get_endpoint(tx, scope, endpoint_id), endpoint_id)
            return webhooks.deliveries_page(tx, scope, endpoint_id, limit=limit)

    def redeliver(self, scope: Project, delivery_id: str) -> Delivery:
        """Send an event again, under the id that it had, with as long a time for tries as at first.

        Raises:
            DeliveryNotFound: the project has no such delivery.
            InvalidRequest: its endpoint is disabled.
        """
        now = self._clock.now()
        with self._db.begin() as tx:
            known = webhooks.get_delivery(tx, scope, delivery_id)
            if known is None:
                raise DeliveryNotFound(delivery_id)
            endpoint = webhooks.get_endpoint(tx, scope, known.endpoint_id)
            if endpoint is None or endpoint.disabled_reason is not None:
                raise InvalidRequest(
                    f"Webhook endpoint {known.endpoint_id} is disabled: update it first, which enables it again.",
                    param="delivery_id",
                )
            changed = webhooks.change_delivery(
                tx, scope, delivery_id, status="pending", created_at=now, next_try_at=now, n_tries=0, reason=None
            )
        return changed or known

    def sweep(self) -> int:
        """Delete what is older than the log is kept, every project's; return how much that was."""
        with self._db.begin() as tx:
            return webhooks.sweep(tx, _EVERYWHERE, before=self._clock.now() - LOG_S, limit=N_SWEPT)

    def _opened(self, endpoint: Endpoint) -> Endpoint:
        return opened(self._secrets, endpoint)

    def _vetted_url(self, url: str) -> str:
        try:
            self._sender.check(url)
        except DeliveryFailed as error:
            raise InvalidRequest(f"{error} - 'url'", param="url") from error
        return url


def opened(secrets: Secrets, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint as it signs; with an empty secret where the key that sealed it is lost."""
    old = None if endpoint.old_secret is None else _open(secrets, endpoint.old_secret) or None
    return replace(endpoint, secret=_open(secrets, endpoint.secret), old_secret=old)


def _open(secrets: Secrets, stored: str) -> str:
    try:
        return secrets.open(stored)
    except SecretLost:
        return ""


def signed(endpoint: Endpoint, delivery: Delivery, now: float) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a try at this time.

    Raises:
        DeliveryFailed: the endpoint has no secret that can be opened.
    """
    if not endpoint.secret:
        raise DeliveryFailed(
            f"the endpoint's secret was sealed by another key than {FILE} of the data folder holds: bring that file back, "
            "or give the endpoint a new secret"
        )
    body = json.dumps(delivery.event(), separators=(",", ":")).encode()
    timestamp = int(now)
    return body, {
        "content-type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(endpoint.secrets(now), delivery.id, timestamp, body),
    }


def _vetted_types(event_types: Sequence[str]) -> list[str]:
    for event_type in event_types:
        if event_type not in EVENT_TYPES:
            raise InvalidRequest(
                f"'{event_type}' is no event that happens here; these are: {', '.join(EVENT_TYPES)}.", param="event_types"
            )
    return list(dict.fromkeys(event_types))


def _found(endpoint: Endpoint | None, endpoint_id: str) -> Endpoint:
    if endpoint is None:
        raise EndpointNotFound(endpoint_id)
    return endpoint
