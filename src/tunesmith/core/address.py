"""Whether an address is this machine speaking to itself."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether a host name or address (without port) is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
