"""Hosts as they are written in an address book and in the membership."""

from __future__ import annotations

import ipaddress

__all__ = ["host_text"]


def host_text(host: str) -> str:
    """A host, always written alike: an IP address as short as can be, a name as DNS does. UnicodeError: it is no name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host if host.isascii() else host.encode("idna").decode("ascii")
