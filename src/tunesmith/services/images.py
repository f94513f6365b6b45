"""Images in messages, fetched before another server or process sees them, so that their URLs lead nobody astray."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunesmith.domain.ports import PictureRefused, Pictures

#: Bytes of all images of one request, and the seconds that fetching them may take.
N_MAX_IMAGE_BYTES: Final = 20 * 1024 * 1024
IMAGES_S: Final = 60.0


def has_images(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a part of a message is an image."""
    contents = [message.get("content") for message in messages]
    return any(part["type"] == "image_url" for content in contents if isinstance(content, list) for part in content)


async def with_images(pictures: Pictures, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return messages with their images as `data:` URLs.

    Raises:
        PictureRefused: one is not fetched, or all together are too large or take too long.
    """
    told: list[Mapping[str, Any]] = []
    n_left = N_MAX_IMAGE_BYTES
    try:
        async with asyncio.timeout(IMAGES_S):
            for message in messages:
                content = message.get("content")
                parts: list[dict[str, Any]] = list(content) if isinstance(content, list) else []
                for number, part in enumerate(parts):
                    if part["type"] == "image_url":
                        url = await pictures.fetch(part["image_url"]["url"], n_max_bytes=n_left)
                        n_left = max(0, n_left - len(url) * 3 // 4)
                        parts[number] = {**part, "image_url": {**part["image_url"], "url": url}}
                told.append({**message, "content": parts} if parts else message)
    except TimeoutError as error:
        raise PictureRefused(f"The images took longer than {IMAGES_S:g} s") from error
    return told
