"""Open dashboards in a process of their own: each gets a page and holds its websocket as a browser's tab does.

Reads one JSON line from stdin: `root` (the server's, without `/v1`), `path` (below `/dashboard`) and `n`. Writes `open`
once all are connected; when stdin ends they leave, and it writes one JSON line: how many messages and bytes came, and the
seconds of this process. A tab acknowledges what came every three seconds, as NiceGUI's script does; it draws nothing.
"""

import asyncio
import json
import re
import sys
import time
import uuid
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import httpx2
import socketio

ACK_S = 3.0
#: What NiceGUI's page hands to its script.
_CLIENT = re.compile(r"^\s*query: \{.*'client_id': '([^']+)'.*'next_message_id': (\d+)", re.MULTILINE)
_PREFIX = re.compile(r'^\s*prefix: "([^"]*)"', re.MULTILINE)


class Tab:
    """One open page."""

    def __init__(self) -> None:
        self.n_messages = 0
        self.n_bytes = 0
        self._next = 0
        self._socket = socketio.AsyncClient(reconnection=False)

    async def open(self, http: httpx2.AsyncClient, root: str, path: str) -> None:
        """Get the page and connect as its script does."""
        page = await http.get(f"{root}/dashboard{path}")
        page.raise_for_status()
        found, prefix = _CLIENT.search(page.text), _PREFIX.search(page.text)
        assert found is not None, page.text[:2000]
        assert prefix is not None, page.text[:2000]
        cookies = SimpleCookie(page.headers.get("set-cookie", ""))
        self._client, self._next = found[1], int(found[2])
        query = {"client_id": self._client, "next_message_id": self._next, "implicit_handshake": "true"}
        query |= {name: str(uuid.uuid4()) for name in ("document_id", "tab_id")}
        self._socket.on("*", self._came)
        await self._socket.connect(
            f"{root}?{urlencode(query)}",
            headers={"cookie": "; ".join(f"{each.key}={each.value}" for each in cookies.values())},
            transports=["websocket"],
            wait_timeout=30,
            socketio_path=f"{prefix[1]}/_nicegui_ws/socket.io",
        )

    async def _came(self, _: str, message: Any = None) -> None:
        self.n_messages += 1
        self.n_bytes += len(json.dumps(message))
        if isinstance(message, dict) and "_id" in message:
            self._next = message["_id"] + 1

    async def stay(self) -> None:
        """Acknowledge now and again."""
        while True:
            await asyncio.sleep(ACK_S)
            await self._socket.emit("ack", {"client_id": self._client, "next_message_id": self._next})

    async def leave(self) -> None:
        """Close the page."""
        await self._socket.disconnect()


async def main() -> None:
    asked = json.loads(sys.stdin.readline())
    tabs = [Tab() for _ in range(asked["n"])]
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as http:
        for tab in tabs:
            http.cookies.clear()  # each is a browser of its own
            await tab.open(http, asked["root"], asked["path"])
    staying = [asyncio.create_task(tab.stay()) for tab in tabs]
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in staying:
        task.cancel()
    for tab in tabs:
        await tab.leave()
    told = {"n_messages": sum(tab.n_messages for tab in tabs), "n_bytes": sum(tab.n_bytes for tab in tabs)}
    print(json.dumps({**told, "cpu_s": time.process_time()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
