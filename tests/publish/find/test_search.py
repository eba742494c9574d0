"""Search by words: what is found, and in which order."""

from pathlib import Path

import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.find.index import update_index
from captioner.jobs.publish.find.search import SearchResult, search_words
from tests.support.rows import row, write_rows

CAPTIONS = {
    "runs": "Two dogs are running on a beach.",
    "coat": "A dog in a red coat.",
    "red": "A red car beside a coat.",
    "snow": "A snowboarder jumps.",
    "sign": 'A sign that says "NOT" (2 + 2) — naïve café, black-and-white.',
    "cat": "A cat.",
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Return the index of CAPTIONS; the alternative of each is that of the next."""
    others = [*list(CAPTIONS.values())[1:], "A dog."]
    rows = [
        row(f"/{name}.jpg", caption=text, confidence=0.1 * n,
            alternatives=[{"caption": other, "log_prob": -5.0}])
        for n, ((name, text), other) in enumerate(zip(CAPTIONS.items(), others, strict=True))
    ]  # fmt: skip
    out = write_rows(tmp_path, rows)
    update_index(out, tmp_path / "index.sqlite", quiet=True)
    return tmp_path / "index.sqlite"


def search(index: Path, query: str, where: str | None = None, limit: int = 20) -> SearchResult:
    return search_words(index, query, where, limit)


def names(result: SearchResult) -> list[str]:
    return [Path(image.image_uri).stem for image in result.found]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("dog on a beach", "runs"),
        ("run", "runs"),
        ("DOGS", "coat"),
        ('"red coat"', "coat"),
        ('"coat red"', None),
        ('"red coat', "coat"),
        ("snow*", "snow"),
        ("snow", None),
        ("jumping", "snow"),
        ("cafe naive", "sign"),
        ("black-and-white", "sign"),
        ("NOT", "sign"),
        ("there", None),
        ("zebra", None),
    ],
)
def test_words_phrases_and_beginnings_are_found(index: Path, query: str, first: str | None) -> None:
    assert names(search(index, query))[:1] == ([first] if first else [])


def test_the_text_counts_more_than_the_alternatives(index: Path) -> None:
    assert names(search(index, "snowboarder")) == ["snow", "red"]
    assert names(search(index, "cat")) == ["cat", "sign"]


def test_of_equals_the_surest_comes_first(tmp_path: Path) -> None:
    rows = [row(f"/{n}.jpg", caption="A dog.", confidence=n / 10) for n in (3, 9, 1)]
    update_index(write_rows(tmp_path, rows), tmp_path / "i.sqlite", quiet=True)
    assert names(search(tmp_path / "i.sqlite", "dog")) == ["9", "3", "1"]
    assert names(search(tmp_path / "i.sqlite", "dog", limit=2)) == ["9", "3"]
    assert names(search(tmp_path / "i.sqlite", "dog", "confidence < 0.9")) == ["3", "1"]


def test_the_best_of_many_matches_are_found_wherever_they_are(tmp_path: Path) -> None:
    long = "A dog is running through the tall grass beside a wooden fence."
    texts = [*[long] * 12_000, *["A dog."] * 1_500, long]
    rows = [
        row(f"/{n}.jpg", caption=text, confidence=n / len(texts)) for n, text in enumerate(texts)
    ]
    update_index(write_rows(tmp_path, rows), tmp_path / "i.sqlite", quiet=True)
    assert names(search(tmp_path / "i.sqlite", "dog", limit=3)) == ["13499", "13498", "13497"]
    assert names(search(tmp_path / "i.sqlite", "dog running", limit=2)) == ["13500", "11999"]


def test_without_a_text_that_has_all_words_some_suffice(index: Path) -> None:
    result = search(index, "beach snowboarder")
    assert (names(result)[0], result.partial) == ("runs", True)
    assert not search(index, "beach dog").partial
    assert search(index, "zebra giraffe") == SearchResult([])


@pytest.mark.parametrize(
    "query",
    ["dog AND", "NEAR(dog coat)", "text:dog red", "dog^2 red", "(dog", "dog)", '"dog', "dog -cat",
     "'dog'", "dog;", "{text}: dog", "+dog", "dog\0", "dog**", '""dog""', "*dog", "%dog_", "\\dog",
     "dog \udcff"],
)  # fmt: skip
def test_what_is_typed_is_never_syntax(index: Path, query: str) -> None:
    assert search(index, query).found


@pytest.mark.parametrize("query", ["", "   ", "!?", '""', "*"])
def test_a_query_without_a_word_is_refused(index: Path, query: str) -> None:
    with pytest.raises(UsageError, match="no word in"):
        search(index, query)


def test_a_wrong_condition_is_refused(index: Path) -> None:
    with pytest.raises(UsageError, match="such as confidence"):
        search(index, "dog", "confidnce > 0.5")
