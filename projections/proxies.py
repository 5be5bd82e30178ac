"""Which proxy of the environment stands between this machine and an endpoint.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` are read as curl and most HTTP clients read them, which
aiohttp does not: it knows neither ``ALL_PROXY`` nor ranges of addresses in ``NO_PROXY``, and takes a password out of
``~/.netrc`` where it has a key already. What is on this machine is always reached directly.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The address of an HTTP proxy, with its user and password where it has them, and the variable that names it."""

    url: str
    variable: str


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that the environment names for an endpoint, None where it is reached directly.

    Logs once which one is used, and which cannot be.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    proxies = getproxies()
    if is_this_machine(host) or bypassed(host, port, proxies.get("no", "")):
        return None
    if "no" not in proxies and proxy_bypass(host):  # macOS and Windows have such a list of their own
        return None
    return _chosen(parts.scheme, proxies)


def is_this_machine(host: str) -> bool:
    """Tell whether a host name or address means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    # People copy 0.0.0.0 from a server's log; it is no address that a proxy could know.
    return address is not None and (address.is_loopback or address.is_unspecified)


def bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Tell whether a ``NO_PROXY`` list has a host: by its name or domain, its address or a range of them, or ``*``.

    What cannot be read in the list is passed over.
    """
    name, address = host.lower().rstrip("."), _address(host)
    return any(_covers(entry, name, address, port) for entry in re.split(r"[,;\s]+", no_proxy.lower()))


def _covers(entry: str, name: str, address: Address | None, port: int) -> bool:
    if entry == "*":
        return True
    match = _ENTRY.fullmatch(entry.rpartition("://")[2].rstrip("/"))
    if match is not None and match["port"] and int(match["port"]) != port:
        return False
    # What is no name, with or without a port, may be an IPv6 address or a range of them.
    listed = match["bracketed"] or match["name"] or "" if match is not None else re.sub(r"[\[\]]", "", entry)
    if address is not None:
        return _in_range(address, listed)
    domain = listed.removeprefix("*").strip(".")
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _chosen(scheme: str, proxies: Mapping[str, str]) -> Proxy | None:
    for name in (scheme, "all"):
        variable = f"{name.upper()}_PROXY"
        given = proxies.get(name, "").strip()
        if not given:
            continue
        url = given if "://" in given else f"http://{given}"
        if _is_usable(url):
            _say(logging.INFO, f"endpoints beyond this machine are called through the proxy of {variable}")
            return Proxy(url, variable)
        kind = url.partition("://")[0].lower()
        kind = f"{kind}:// proxy" if re.fullmatch(r"[a-z0-9+]{1,16}", kind) and kind != "http" else "malformed address"
        _say(
            logging.WARNING,
            f"{variable} names a {kind}, which is not supported: endpoints are called without it; "
            f"name an http:// proxy in {scheme.upper()}_PROXY, or unset {variable}",
        )
    return None


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@cache
def _say(level: int, message: str) -> None:
    log.log(level, "%s", message)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _in_range(address: Address, written: str) -> bool:
    """Tell whether an address is the one that is written, or in the range that is."""
    try:
        return address in ipaddress.ip_network(written, strict=False)
    except ValueError:
        return False
