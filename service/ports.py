"""Whether a port can be listened on, asked before anything slow is started."""

from __future__ import annotations

import errno
import socket

_TAKEN = "is taken"


def port_trouble(host: str, port: int) -> str | None:
    """Say why nobody can listen on a port of this machine; None where somebody can."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return "cannot be used (this machine has no address of that name)"
    # A name may have an address of a kind that this machine does not use: one that works is enough.
    troubles = [_trouble_of(*address) for address in addresses]
    taken = [trouble for trouble in troubles if trouble == _TAKEN]
    return (taken or troubles)[0] if taken or None not in troubles else None


def _trouble_of(family: int, kind: int, protocol: int, _name: str, address: tuple[str | int, ...]) -> str | None:
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return _TAKEN if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None
