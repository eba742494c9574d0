"""URLs without their signatures: who has a signed URL has access, so nothing may show it.

The rest of a query stays, as it may say which image is meant.
"""

import re

from captioner.jobs.storage.uris import is_http, split_chain

# Names of parameters, in lower case, that grant access ...
_SIGNATURES = frozenset(
    (
        *("signature", "sig", "hmac", "token", "access_token", "auth_token", "authtoken"),
        *("authorization", "auth", "apikey", "api_key", "api-key", "password", "secret"),
        *("security-token", "tempauth", "__token__", "hdnea", "hdnts", "q-signature", "oh", "hm"),
    )
)
_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-ms-", "x-cos-")
# ... and of those that change with them: of AWS, Google, Azure, Alibaba, Tencent and others.
_BESIDE = frozenset(
    (
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "key-pair-id", "policy"),
        *("expires", "expiry", "exp", "oe", "ex", "is"),
        *("sv", "st", "se", "sr", "sp", "sip", "spr", "ss", "srt", "sdd", "ses", "scid"),
        *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid"),
        *("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time"),
        *("q-header-list", "q-url-param-list"),
    )
)
_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)


def without_signature(url: str) -> str:
    """Return a URL, or a chain of them, without the parameters that sign its HTTP queries."""
    if "?" not in url:
        return url
    inner, container = split_chain(url)
    if container:
        return f"{inner}::{without_signature(container[2:])}"
    return _unsigned(url) if is_http(url) else url


def without_signatures(text: str) -> str:
    """Return a text without the signatures of the URLs in it."""
    return _URL.sub(lambda url: _unsigned(url[0]), text) if "?" in text else text


def _unsigned(url: str) -> str:
    address, sharp, fragment = url.partition("#")
    address, _, query = address.partition("?")
    parameters = query.split("&")
    if not any(map(_signs, parameters)):
        return url
    kept = (each for each in parameters if not _signs(each) and _name(each) not in _BESIDE)
    query = "&".join(kept)
    return f"{address}{'?' if query else ''}{query}{sharp}{fragment}"


def _signs(parameter: str) -> bool:
    name = _name(parameter)
    return name in _SIGNATURES or name.startswith(_PREFIXES)


def _name(parameter: str) -> str:
    return parameter.partition("=")[0].lower()
