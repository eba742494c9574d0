"""What images may be fetched by HTTP: a list of images is input, and must not open every door.

A server on a private address, such as a router's page or the metadata of a cloud machine, answers
whoever asks from inside. So a host must have a public address, unless the job names it: as SOURCE,
or with `--allow-host`. This holds after redirects, too, and for what a name resolves to.
"""

import copy
import ipaddress
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from fsspec.config import conf

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.storage.uris import is_http, is_local, scheme, split_chain
from captioner.schemas.caption_table import Status

Headers = Mapping[str, str]
Tables = Mapping[str, Mapping[str, Any]]  # storage options by protocol
_HTTP = ("http", "https")
_LISTED = frozenset(  # that a list of images may name
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "zip", "tar", *_HTTP)
)


@dataclass(frozen=True)
class AccessRules:
    """The hosts that HTTP requests may reach whatever their address is, and the headers for some.

    A host is in lower case, with a port ("example.org:8080") or without, for all ports.
    """

    hosts: frozenset[str] = frozenset()
    allow_private: bool = False
    headers: Mapping[str, Headers] = field(default_factory=dict, repr=False)

    def allows(self, host: str, port: int | None) -> bool:
        """Return whether a host may have a private address."""
        return self.allow_private or not self.hosts.isdisjoint(_names(host, port))

    def headers_of(self, host: str, port: int | None) -> dict[str, str]:
        """Return the headers of requests to a host."""
        found = (self.headers.get(name, {}) for name in reversed(_names(host, port)))
        return {name: value for headers in found for name, value in headers.items()}

    def check_address(self, host: str, port: int | None, address: str) -> None:
        """Raise FetchError if a host that is not allowed has an address that is not public."""
        if not self.allows(host, port) and not _is_public(address):
            raise refusal(host, "has a private address")


NO_EXCEPTIONS = AccessRules()
_rules = NO_EXCEPTIONS


def set_access_rules(rules: AccessRules) -> None:
    """Set the rules of this process, and forget what is open under others."""
    global _rules
    if rules != _rules and (http := sys.modules.get("fsspec.implementations.http")):
        http.HTTPFileSystem.clear_instance_cache()
    _rules = rules


def allow(urls: Iterable[str]) -> None:
    """Make exceptions of the hosts of URLs that a person gave in this process."""
    if hosts := hosts_of(urls):
        set_access_rules(replace(_rules, hosts=_rules.hosts | hosts))


def access_rules() -> AccessRules:
    """Return the rules of this process."""
    return _rules


def host_of(url: str) -> str | None:
    """Return the host of an HTTP URL, with its port, or of the container of a chain."""
    _, container = split_chain(url)
    if container:
        return host_of(container[2:])
    return urlsplit(url).netloc.rpartition("@")[2].lower() or None if is_http(url) else None


def hosts_of(urls: Iterable[str]) -> frozenset[str]:
    """Return the hosts of the HTTP URLs among some URLs and paths."""
    return frozenset(filter(None, map(host_of, urls)))


def refusal(host: str, why: str) -> FetchError:
    """Return the error of an image on a host that the rules do not allow."""
    return FetchError(
        Status.REFUSED,
        f"{host} {why}: allow it with --allow-host, or all such with --allow-private",
    )


def rules_of(
    urls: Iterable[str], allow: Iterable[str], allow_private: bool, options: Tables
) -> AccessRules:
    """Return the rules of a job: its own URLs and the hosts that it allows are exceptions.

    Headers for a host are in the table of its URL (`storage_options."https://example.org"`); those
    in the tables http and https are for all hosts that are exceptions. UsageError if there is none.
    """
    hosts = hosts_of(urls) | {host.lower() for host in allow}
    headers: dict[str, Headers] = {}
    for protocol in _HTTP:
        if found := _headers(options.get(protocol, {})):
            _check_hosts(protocol, hosts)
            headers |= {host: {**headers.get(host, {}), **found} for host in hosts}
    own = {host: _headers(table) for key, table in options.items() if (host := host_of(key))}
    return AccessRules(hosts, allow_private, {**headers, **own})


def without_headers(options: Tables) -> dict[str, dict[str, Any]]:
    """Return a copy of storage options without the headers that `rules_of` takes from them."""
    tables = {key: copy.deepcopy(dict(t)) for key, t in options.items() if not host_of(key)}
    for protocol in _HTTP:
        table = tables.get(protocol, {})
        table.pop("headers", None)
        table.get("client_kwargs", {}).pop("headers", None)
    return tables


def _headers(table: Mapping[str, Any]) -> dict[str, str]:
    return {**table.get("client_kwargs", {}).get("headers", {}), **table.get("headers", {})}


def _check_hosts(protocol: str, hosts: Collection[str]) -> None:
    if not hosts:
        raise UsageError(
            f"the headers in storage_options.{protocol} would be sent to every host of the list: "
            'put them into a table of one host, such as [storage_options."https://example.org"]'
        )


def _names(host: str, port: int | None) -> tuple[str, str]:
    name = f"[{host}]" if ":" in host else host.lower().rstrip(".")
    return f"{name}:{port}", name


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inside is not None:
            return _is_public(str(inside))
        if address in _NAT64:
            return _is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # where a cloud has its machines' metadata


def why_refused(uri: str, folder: str) -> str | None:
    """Return why a list in a folder may not name an image with this URI, or None."""
    _, container = split_chain(uri)
    if is_local(uri):
        if is_local(folder):
            return None
        return "a list from elsewhere may not name files of this machine: save it here to use it"
    protocol = scheme(uri)
    if protocol not in _LISTED and protocol not in conf and protocol != scheme(folder):
        return (
            f"a list may not name {protocol}:// unless a job file has a table "
            f"[storage_options.{protocol}]"
        )
    return why_refused(container[2:], folder) if container else None
