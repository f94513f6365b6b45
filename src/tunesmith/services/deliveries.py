"""Sending webhooks: a thread that makes deliveries of the outbox, and tries each until it arrives or is given up."""

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import ApiError
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.core.secrets import Secrets
from tunesmith.domain.scope import Everywhere
from tunesmith.domain.sight import UNSEEN, WEBHOOKS, Sight
from tunesmith.domain.webhook import Delivery, DeliveryFailed, Endpoint, WebhookSender
from tunesmith.services.webhooks import opened, signed
from tunesmith.store import audit, outbox, webhooks
from tunesmith.store.session import Database

#: How often the outbox is looked at, how long a delivery is tried, and the pauses between tries.
EVERY_S: Final = 0.5
PATIENCE_S: Final = 72 * 3600.0
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 3600.0
#: Tries at once, in all and to one endpoint, so that a slow one holds no other up.
N_AT_ONCE: Final = 32
N_OF_ENDPOINT: Final = 4
N_TOLD: Final = 200
GONE: Final = 410
#: Of the audit log, for an endpoint that said so.
DISABLED: Final = "webhook_endpoint.disabled"
_EVERYWHERE: Final = Everywhere("what is to be told is told whosever it is")

log = structlog.get_logger()


class Deliveries:
    """Sends what is due, from `start` to `stop`; what is under way then is tried again by the next server."""

    def __init__(  # noqa: PLR0913 - each is a part of its own
        self,
        *,
        db: Database,
        clock: Clock,
        ids: Ids,
        sender: WebhookSender,
        secrets: Secrets,
        chance: random.Random | None = None,
        every_s: float = EVERY_S,
        first_pause_s: float = FIRST_PAUSE_S,
        sight: Sight = UNSEEN,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._sender = sender
        self._secrets = secrets
        self._chance = chance if chance is not None else random.SystemRandom()
        self._every_s = every_s
        self._first_pause_s = first_pause_s
        self._sight = sight
        #: Called with the job of every event that was told, once it was.
        self.on_told: Callable[[str], None] = lambda _: None
        #: Tries under way, by delivery, with their endpoints.
        self._trying: dict[str, str] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="deliveries", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """Stop sending."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    async def _run(self) -> None:
        tries: set[asyncio.Task[None]] = set()
        while not self._ending.is_set():
            try:
                due = await asyncio.to_thread(self._look)
            except (ApiError, OSError):  # a full disk or an absent database now is not one in a moment
                log.exception("webhook.look")
                due = []
            for delivery in due:
                self._trying[delivery.id] = delivery.endpoint_id
                tries.add(asyncio.create_task(self._try(delivery)))
            if tries:
                _, tries = await asyncio.wait(tries, timeout=self._every_s, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(self._every_s)
        for each in tries:
            each.cancel()
        await asyncio.gather(*tries, return_exceptions=True)

    def _look(self) -> list[Delivery]:
        """Make deliveries of the events that nobody was told of, and return those to begin with now."""
        with self._db.read() as tx:
            events = outbox.untold(tx, _EVERYWHERE, limit=N_TOLD)
        if events:
            self._fan_out(events)
        busy = list(self._trying.values())
        full = {endpoint for endpoint in busy if busy.count(endpoint) >= N_OF_ENDPOINT}
        with self._db.read() as tx:
            due = webhooks.due(tx, _EVERYWHERE, limit=N_AT_ONCE * 2, without=full)
        chosen: list[Delivery] = []
        for delivery in due:
            if (
                len(busy) < N_AT_ONCE
                and delivery.id not in self._trying
                and busy.count(delivery.endpoint_id) < N_OF_ENDPOINT
            ):
                chosen.append(delivery)
                busy.append(delivery.endpoint_id)
        return chosen

    def _fan_out(self, events: list[outbox.Told]) -> None:
        with self._db.begin() as tx:
            now = self._clock.now()
            endpoints = webhooks.enabled(tx, _EVERYWHERE)
            for event in events:
                for endpoint in endpoints:
                    wanted = endpoint.project_id == event.project_id and event.type in endpoint.event_types
                    if wanted and endpoint.created_at <= event.created_at:
                        data = {"id": event.job_id}
                        delivery = Delivery(
                            self._ids.webhook(), event.project_id, endpoint.id, event.id, event.type, data,
                            event.created_at, now, now,
                        )  # fmt: skip
                        webhooks.add_delivery(tx, _EVERYWHERE, delivery)
                outbox.tell(tx, _EVERYWHERE, event.id)
        failpoint("webhooks.fanned_out")
        for event in events:
            self.on_told(event.job_id)

    async def _try(self, delivery: Delivery) -> None:
        try:
            await self._deliver(delivery)
        except (ApiError, OSError):
            log.exception("webhook.try", delivery=delivery.id)  # it is due still, and tried again
            await asyncio.sleep(self._first_pause_s)
        finally:
            del self._trying[delivery.id]

    async def _deliver(self, delivery: Delivery) -> None:
        endpoint = await asyncio.to_thread(self._endpoint, delivery.endpoint_id)
        if endpoint is None:
            return
        status, reason = None, None
        try:
            status = await self._sender.post(endpoint.url, *signed(endpoint, delivery, self._clock.now()))
        except DeliveryFailed as error:
            reason = str(error)
        failpoint("webhooks.sent")
        await asyncio.to_thread(self._note, delivery, status, reason)

    def _endpoint(self, endpoint_id: str) -> Endpoint | None:
        with self._db.read() as tx:
            found = webhooks.get_endpoint(tx, _EVERYWHERE, endpoint_id)
        return None if found is None else opened(self._secrets, found)

    def _note(self, delivery: Delivery, status: int | None, reason: str | None) -> None:
        """Write down how a try went, and when there is another one."""
        now = self._clock.now()
        n_tries = delivery.n_tries + 1
        arrived = status is not None and 200 <= status < 300
        if status is not None and not arrived:
            reason = f"the endpoint answers {status}"
        pause_s = min(LONGEST_PAUSE_S, self._first_pause_s * 2 ** min(n_tries - 1, 20)) * self._chance.uniform(0.75, 1.25)
        late = now + pause_s > delivery.created_at + PATIENCE_S
        told = "delivered" if arrived else "failed" if late or status == GONE else "pending"
        with self._db.begin() as tx:
            webhooks.change_delivery(
                tx, _EVERYWHERE, delivery.id, status=told, n_tries=n_tries, tried_at=now, status_code=status, reason=reason,
                next_try_at=now + pause_s,
            )  # fmt: skip
            if status == GONE:
                gone = "it answered 410: nothing is sent there any more"
                webhooks.change_endpoint(tx, _EVERYWHERE, delivery.endpoint_id, disabled_reason=gone, updated_at=now)
                webhooks.give_up(tx, _EVERYWHERE, delivery.endpoint_id, gone)
                audit.tell(tx, _EVERYWHERE, DISABLED, delivery.project_id, [delivery.endpoint_id])
        self._sight.count(WEBHOOKS, told)
        log.info("webhook.tried", delivery=delivery.id, status=status, reason=reason, tries=n_tries, now=told)
