"""Hosts of HTTP and their addresses: how they are written, and which are public."""

import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from captioner.jobs.storage.uris import is_http, split_chain

_PORTS = {"http": 80, "https": 443}
_GLOBAL = ipaddress.ip_network("2000::/3")  # all that is given to anybody
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # where a cloud has its machines' metadata


def place_of(host: str, port: int | None = None) -> str:
    """Return "host:port", or the host alone, in the one way in which hosts are compared.

    A name is in lower case and in ASCII, without the dot at its end; an address is in its shortest
    form, in brackets if it is of IPv6.
    """
    name = _ascii(host.strip("[]").lower().rstrip("."))
    with suppress(ValueError):
        name = str(ipaddress.ip_address(name))
    name = f"[{name}]" if ":" in name else name
    return name if port is None else f"{name}:{port}"


def _ascii(host: str) -> str:
    """Return a name as aiohttp asks for it, which brings yarl."""
    if host.isascii():
        return host
    try:
        from yarl import URL
    except ImportError:  # and so nothing that would ask
        return host
    with suppress(ValueError):
        return URL(f"http://{host}").raw_host or host
    return host


def split_place(place: str) -> tuple[str, int | None]:
    """Split "host:port", or a host alone; raise ValueError if it is neither."""
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError(f"no host in {place}")
    return parts.hostname, parts.port


def origin_of(url: str) -> str | None:
    """Return scheme, host and port of an HTTP URL, as "https://example.org:443".

    Of a chain, return that of its container; None for other URLs and those without a valid host.
    """
    _, container = split_chain(url)
    if container:
        return origin_of(container[2:])
    if not is_http(url):
        return None
    with suppress(ValueError):
        parts = urlsplit(url)
        host, port = split_place(parts.netloc.rpartition("@")[2])
        scheme = parts.scheme.lower()
        return f"{scheme}://{place_of(host, _PORTS[scheme] if port is None else port)}"
    return None


def is_numeric(host: str) -> bool:
    """Return whether a host is written like an address, so that no resolver is asked for it."""
    return ":" in host or host.replace(".", "").isdigit()


def is_address(host: str) -> bool:
    """Return whether a host is an address in its usual form."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(text: str) -> bool:
    """Return whether an address, and the one of IPv4 that may be inside it, is a public one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
        if address not in _GLOBAL:
            return False
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS


def is_private_now(place: str) -> bool:
    """Return whether all addresses of a host, perhaps with a port, are private at this moment."""
    host, port = split_place(place)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return not any(is_public(str(address[0])) for *_, address in found)
