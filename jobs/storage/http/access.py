"""What images may be fetched by HTTP: a list of images is input, and must not open every door.

A server on a private address, such as a router's page or the metadata of a cloud machine, answers
whoever asks from inside. So a host must have a public address, unless the job allows it, or names
it in SOURCE and it has a private address when the job begins: whoever owns the name could move it
later. This holds after redirects, too, and for what a name resolves to.
"""

import copy
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fsspec.config import conf

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.storage.http.addresses import (
    is_address,
    is_numeric,
    is_private_now,
    is_public,
    origin_of,
    place_of,
    split_place,
)
from captioner.jobs.storage.uris import ARCHIVES, is_http, is_local, scheme, split_chain
from captioner.schemas.caption_table import Status

Headers = Mapping[str, str]
Tables = Mapping[str, Mapping[str, Any]]  # storage options by protocol
_HTTP = ("http", "https")
_LISTED = frozenset(  # that a list of images may name
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "zip", "tar", *_HTTP)
)
_ALIASES = {"s3a": "s3", "gcs": "gs", **dict.fromkeys(("abfs", "abfss", "adl"), "az")}
_EVERYWHERE = frozenset(("auth", "cookies", "params"))  # fsspec sends them to all hosts


@dataclass(frozen=True)
class AccessRules:
    """The hosts that HTTP requests may reach whatever their address is, and the headers for some.

    A host is written as `place_of` does it, with a port ("example.org:8080") or without, for all
    ports; or it is the bucket of a store ("s3://bucket"), which lists by HTTP may name. Those that
    are only `named` become exceptions if they are private when the rules are set. Headers are by
    origin, "https://example.org:443", or without a port.
    """

    hosts: frozenset[str] = frozenset()
    allow_private: bool = False
    headers: Mapping[str, Headers] = field(default_factory=dict, repr=False)
    named: frozenset[str] = frozenset()

    def settled(self) -> "AccessRules":
        """Return the rules with exceptions for the named hosts that are private now."""
        return replace(
            self, hosts=self.hosts | set(filter(is_private_now, self.named)), named=frozenset()
        )

    def allows(self, host: str, port: int | None) -> bool:
        """Return whether a host may have a private address."""
        names = (place_of(host), place_of(host, port))
        return self.allow_private or not self.hosts.isdisjoint(names)

    def headers_of(self, protocol: str, host: str, port: int | None) -> dict[str, str]:
        """Return the headers of requests to a host by http or https."""
        places = (place_of(host), place_of(host, port))
        found = (self.headers.get(f"{protocol}://{place}", {}) for place in places)
        return {name: value for headers in found for name, value in headers.items()}

    def check_host(self, host: str, port: int | None) -> None:
        """Raise FetchError for an address that no resolver would see, and that may not be asked.

        One that is written as nobody does, such as 127.1, is always refused.
        """
        if not is_numeric(host):
            return
        if not is_address(host):
            remedy = "give all of its four numbers, as in 192.0.2.1"
            why = f"{host} is not how an address is written: {remedy}"
            raise FetchError(Status.REFUSED, why)
        self.check_address(host, port, host)

    def check_address(self, host: str, port: int | None, address: str) -> None:
        """Raise FetchError if a host that is not allowed has an address that is not public."""
        if not self.allows(host, port) and not is_public(address):
            raise refusal(host, port)


NO_EXCEPTIONS = AccessRules()
_rules = NO_EXCEPTIONS


def set_access_rules(rules: AccessRules) -> None:
    """Set the rules of this process, and forget what is open under others."""
    global _rules
    rules = rules.settled()
    if rules != _rules and (http := sys.modules.get("fsspec.implementations.http")):
        http.HTTPFileSystem.clear_instance_cache()
    _rules = rules


def allow(urls: Iterable[str]) -> None:
    """Let a person name hosts by URLs in this process, as SOURCE does in a job."""
    if named := places_of(urls):
        set_access_rules(replace(_rules, named=named))


def access_rules() -> AccessRules:
    """Return the rules of this process."""
    return _rules


def places_of(urls: Iterable[str]) -> frozenset[str]:
    """Return host and port of the HTTP URLs among some URLs and paths."""
    return frozenset(origin.partition("://")[2] for origin in filter(None, map(origin_of, urls)))


def bucket_of(url: str) -> str | None:
    """Return the bucket of a URL, as "s3://bucket", or what is in its place; None if there is none.

    Of a chain, return that of its container.
    """
    _, container = split_chain(url)
    if container:
        return bucket_of(container[2:])
    protocol = scheme(url)
    if is_local(url) or is_http(url) or protocol in ARCHIVES:
        return None
    bucket = url.partition("://")[2].partition("/")[0]
    return f"{_ALIASES.get(str(protocol), protocol)}://{bucket}"


def refusal(host: str, port: int | None) -> FetchError:
    """Return the error of an image on a host that the rules do not allow."""
    place = place_of(host, port)
    return FetchError(
        Status.REFUSED,
        f"{host} has a private address: allow it with --allow-host {place}, or all such with "
        "--allow-private",
    )


def rules_of(
    urls: Iterable[str], allow: Iterable[str], allow_private: bool, options: Tables
) -> AccessRules:
    """Return the rules of a job from its own URLs, the hosts that it allows, and its options.

    Headers for a host are in the table of its URL (`storage_options."https://example.org"`). Those
    in the table https are for all hosts of the URLs and those allowed, but only by https; those in
    the table http also by http. UsageError if there is no such host.
    """
    urls, allow = list(urls), list(allow)
    named = places_of(urls)
    buckets = {bucket_of(url) for url in (*urls, *allow)}
    hosts = frozenset(place_of(*split_place(each)) for each in allow if scheme(each) is None)
    headers: dict[str, Headers] = {}
    for protocol in _HTTP:
        if found := _headers(protocol, options.get(protocol, {})):
            _check_hosts(protocol, hosts | named)
            for origin in _origins(protocol, hosts | named):
                headers[origin] = {**headers.get(origin, {}), **found}
    for key, table in options.items():
        if is_http(key):
            origin = _origin(key)
            headers[origin] = {**headers.get(origin, {}), **_headers(f'"{key}"', table)}
    hosts |= frozenset(filter(None, buckets))
    return AccessRules(hosts, allow_private, headers, named)


def _origins(protocol: str, places: Collection[str]) -> list[str]:
    """Return where the headers of a table go: those for https never without encryption."""
    protocols = _HTTP if protocol == "http" else ("https",)
    return [f"{each}://{place}" for each in protocols for place in places]


def _origin(key: str) -> str:
    if origin := origin_of(key):
        return origin
    raise UsageError(f"storage_options has a table for {key!r}, which is no URL of a host")


def without_headers(options: Tables) -> dict[str, dict[str, Any]]:
    """Return a copy of storage options without the headers that `rules_of` takes from them."""
    tables = {key: copy.deepcopy(dict(t)) for key, t in options.items() if not is_http(key)}
    for protocol in _HTTP:
        table = tables.get(protocol, {})
        table.pop("headers", None)
        table.get("client_kwargs", {}).pop("headers", None)
    return tables


def _headers(name: str, table: Mapping[str, Any]) -> dict[str, str]:
    client = table.get("client_kwargs", {})
    if leaking := _EVERYWHERE.intersection((*table, *client)):
        raise UsageError(
            f"{min(leaking)} in storage_options.{name} would be sent to every host of the list: "
            'put it into headers, such as headers = { Cookie = "..." }'
        )
    return {**client.get("headers", {}), **table.get("headers", {})}


def check_own(tables: Tables) -> None:
    """Raise UsageError for what options from outside the job would send to every host."""
    for protocol in _HTTP:
        table = tables.get(protocol, {})
        names = {*table, *table.get("client_kwargs", {})}
        if leaking := names.intersection(("headers", *_EVERYWHERE)):
            raise UsageError(
                f"{min(leaking)} in fsspec's own configuration (FSSPEC_{protocol.upper()}, or a "
                "file in ~/.config/fsspec) would be sent to every host: remove it there, and put "
                'headers into a job file, such as [storage_options."https://example.org"]'
            )


def _check_hosts(protocol: str, hosts: Collection[str]) -> None:
    if not hosts:
        raise UsageError(
            f"the headers in storage_options.{protocol} would be sent to every host of the list: "
            'put them into a table of one host, such as [storage_options."https://example.org"]'
        )


def why_refused(uri: str, folder: str) -> str | None:
    """Return why a list in a folder may not name an image with this URI, or None."""
    _, container = split_chain(uri)
    if is_local(uri):
        if is_local(folder):
            return None
        return "a list from elsewhere may not name files of this machine: save it here to use it"
    protocol, bucket = scheme(uri), bucket_of(uri)
    if protocol not in _LISTED and protocol not in conf and protocol != scheme(folder):
        return (
            f"a list may not name {protocol}:// unless a job file has a table "
            f"[storage_options.{protocol}]"
        )
    if container:
        return why_refused(container[2:], folder)
    is_by_http = any(map(is_http, folder.split("::")))
    if is_by_http and bucket and not (_rules.allow_private or bucket in _rules.hosts):
        return (
            "a list by HTTP may not name objects of a store, which are read with the credentials "
            f"of the job: allow it with --allow-host {bucket}"
        )
    return None
