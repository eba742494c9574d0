"""The file system of S3, whose redirects are a matter of botocore.

It knows those to another region. aiohttp would follow any, even to hosts that the job does not
allow, and send the token of the session along.
"""

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from aiohttp import ClientResponseError
from s3fs import S3FileSystem

from captioner.jobs.storage.attempts.faults import REDIRECTS


class S3Store(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """The file system of s3fs that follows no redirect by itself."""

    def __init__(self, *given: Any, config_kwargs: Any = None, **options: Any) -> None:
        config = {"http_session_cls": _Session, **(config_kwargs or {})}
        super().__init__(*given, config_kwargs=config, **options)


class _Session(AIOHTTPSession):  # type: ignore[misc]  # nor has aiobotocore
    async def _get_session(self, proxy_url: str | None) -> "_Unredirected":
        return _Unredirected(await super()._get_session(proxy_url))


class _Unredirected:
    """A session of aiohttp that follows no redirect; botocore gets those that name a region."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, *given: Any, **options: Any) -> Any:
        answer = await self._session.request(*given, allow_redirects=False, **options)
        if answer.status in REDIRECTS and "x-amz-bucket-region" not in answer.headers:
            answer.close()
            raise ClientResponseError(answer.request_info, answer.history, status=answer.status)
        return answer
