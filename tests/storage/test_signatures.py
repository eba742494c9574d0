"""Signed URLs: what is left of them may be shown, and says which image it is."""

import pytest

from captioner.jobs.storage.failures import without_secrets
from captioner.jobs.storage.signatures import without_signature, without_signatures

AWS = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20260101%2Feu&X-Amz-Date=20260101T0Z"
    "&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=53c"
)
SIGNED = {
    f"https://b.s3.amazonaws.com/a.jpg?{AWS}": "https://b.s3.amazonaws.com/a.jpg",
    "https://s/b/a.jpg?AWSAccessKeyId=A&Signature=b%3D&Expires=1": "https://s/b/a.jpg",
    "https://g/b/a.jpg?GoogleAccessId=a&Expires=1&Signature=x": "https://g/b/a.jpg",
    "https://g/a.jpg?X-Goog-Algorithm=R&X-Goog-Signature=0f": "https://g/a.jpg",
    "https://az/c/a.jpg?sv=2022&st=1&se=2&sr=b&sp=r&sig=k%3D": "https://az/c/a.jpg",
    "https://cdn/a.jpg?Policy=e&Signature=x&Key-Pair-Id=K": "https://cdn/a.jpg",
    "https://h/image?id=7&token=abc&w=100": "https://h/image?id=7&w=100",
    "https://h/image?ACCESS_TOKEN=abc": "https://h/image",
    "https://h/x.parquet?sig=1#row=17": "https://h/x.parquet#row=17",
    "zip://a.jpg::https://h/x.zip?sig=1&se=2": "zip://a.jpg::https://h/x.zip",
    "HTTPS://h/a.jpg?sig=1": "HTTPS://h/a.jpg",
    "https://h/a.jpg?id=1&X%2DAmz-Signature=1": "https://h/a.jpg?id=1",
    "https://h/a.jpg?id=1;sig=1": "https://h/a.jpg",
    "https://h/it's my photo.jpg?sig=1": "https://h/it's my photo.jpg",
    "https://h/photo #1.jpg?id=1&sig=1": "https://h/photo #1.jpg?id=1",
    "https://h/a.jpg?id=1#access_token=1": "https://h/a.jpg?id=1",
}
PLAIN = (
    *(
        "https://h/image?id=7&expires=never",
        "https://h/a.jpg?",
        "https://h/a.jpg?x",
        "https://h/a#b?c",
        "https://h/#",
        "/a?sig=1.jpg",
    ),
    *("s3://b/a.jpg?sig=1", "https://h/a?st=1&se=2", "file:///a%3Fsig=1"),
)


@pytest.mark.parametrize("url", SIGNED)
def test_a_signed_url_loses_its_signature_and_keeps_what_names_the_image(url: str) -> None:
    assert without_signature(url) == SIGNED[url]
    assert without_signature(SIGNED[url]) == SIGNED[url]


@pytest.mark.parametrize("url", PLAIN)
def test_other_queries_and_names_stay_as_they_are(url: str) -> None:
    assert without_signature(url) == url


def test_messages_lose_the_signatures_of_the_urls_in_them() -> None:
    text = "cannot read https://h/a.jpg?sig=SECRET: 403, url='https://h/b.jpg?id=1&token=SECRET'"
    assert without_signatures(text) == "cannot read https://h/a.jpg 403, url='https://h/b.jpg?id=1'"
    assert "SECRET" not in without_secrets(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://h/my list.txt?X-Amz-Signature=SECRET",
        "https://h/it's.jpg?id=1&sig=SECRET",
        "https://h/a.jpg?name=my photo&sig=SECRET&x=1",
        "https://h/photo #1.jpg?sig=SECRET",
        "https://h/a.jpg#access_token=SECRET",
        "https://h/a b.jpg?a=1;sig=SECRET",
        "https://SECRET@h/a.jpg",
        "https://me:SECRET@h/a.jpg",
    ],
)
def test_a_message_shows_no_part_of_a_url_that_grants_access(url: str) -> None:
    for text in (f"cannot read {url}: why? http://x", f"cannot read '{url}'", f"({url})\nnext"):
        assert "SECRET" not in without_signatures(text)
        assert "SECRET" not in without_secrets(text)


def test_a_message_without_signatures_stays_as_it_is() -> None:
    text = "cannot read s3://b/a?sig=1.jpg: see https://h/help?id=1#top; what? me@h said token=x"
    assert without_signatures(text) == text
