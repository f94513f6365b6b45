"""Addresses: whether one is this machine speaking to itself, and what of one may be shown."""

import ipaddress
import re
from typing import Final

#: Of a URL: who asks, by name and password, or by a token alone where it is the web; and what a query says in secret.
_USER: Final = re.compile(r"(?<=://)([^/?#@:\s]*):[^/?#\s]*@")
_TOKEN: Final = re.compile(r"(?i)(?<=http)(s?://)[^/?#@:\s]+@")
_SAID: Final = re.compile(r"(?i)([?&][^=&\s]*(?:password|token|secret|key)[^=&\s]*=)[^&\s#]+")
HIDDEN: Final = "…"


def is_loopback(host: str) -> bool:
    """Say whether a host name or address (without port) is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def shown(text: str) -> str:
    """Return a URL, or words with URLs in them, without the passwords and tokens that those hold."""
    text = _TOKEN.sub(rf"\1{HIDDEN}@", text)
    return _SAID.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1:{HIDDEN}@", text))
