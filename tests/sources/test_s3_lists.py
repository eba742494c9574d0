"""Lists of S3 and its likes, page by page: those that end are read, whatever their pages hold."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from captioner.jobs.errors import TemporaryError
from captioner.jobs.sources.listing import s3
from captioner.jobs.sources.listing.filters import AllImages
from captioner.jobs.storage.file_types import is_image_name


class Store:
    """A store that lists a bucket: `page` gives names by number, `end` is how many pages it has."""

    protocol = ("s3",)

    def __init__(self, page: Callable[[int], list[str]], end: int | None, tokens: int) -> None:
        self._page, self._end, self._tokens = page, end, tokens

    def split_path(self, path: str) -> tuple[str, str, None]:
        return path, "", None

    def call_s3(self, _method: str, **request: Any) -> dict[str, Any]:
        number = int(request.get("ContinuationToken", "0"))
        found = [{"Key": name, "Size": 1} for name in self._page(number)]
        is_last = number + 1 == self._end
        token = str((number + 1) % self._tokens)
        return {"IsTruncated": not is_last, "NextContinuationToken": token, "Contents": found}


def names(page: Callable[[int], list[str]], end: int | None = None, tokens: int = 10**6) -> int:
    """Return how many names a list has."""
    pages = s3.s3_pages(Store(page, end, tokens), "bucket", AllImages(is_image_name))
    return sum(map(len, pages("")))


def shuffled(number: int) -> list[str]:
    return [f"{random.Random(number * 10 + digit).random()}.jpg" for digit in range(10)]


@pytest.mark.parametrize(
    ("page", "count"),
    [
        (lambda number: ["a.jpg"] if number == 999 else [], 1),  # behind many deleted names
        (shuffled, 10_000),
        (lambda number: [f"{number // 2}.jpg", f"{number // 2}.png"], 2000),  # each page twice
    ],
    ids=["empty pages", "no order", "pages that come twice"],
)
def test_a_list_that_ends_is_read_to_its_end(page: Callable[[int], list[str]], count: int) -> None:
    assert names(page, end=1000) == count


@pytest.mark.parametrize(
    ("page", "tokens"),
    [
        (lambda number: ["a.jpg"], 10**6),
        (lambda number: [f"{number % 7}.jpg"], 10**6),
        (lambda number: [], 1),
        (lambda number: [], 7),
        (lambda number: [], 10**6),
    ],
    ids=["same names", "circle of names", "same token", "circle of tokens", "only empty pages"],
)
def test_a_list_that_does_not_end_is_an_error(
    page: Callable[[int], list[str]], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MOST_EMPTY", 1000 if tokens > 10 else 10**9)
    with pytest.raises(TemporaryError, match="no new names come"):
        names(page, tokens=tokens)
