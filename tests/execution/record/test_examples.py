"""The rows that a run shows as examples."""

import pyarrow as pa

from captioner.jobs.execution.record.examples import Examples, examples_of


def rows(*values: tuple[str, str, float | None]) -> pa.Table:
    names = ("image_uri", "status", "confidence")
    records = [dict(zip(names, each, strict=True)) for each in values]
    texts = [{"caption": f"of {r['image_uri']}", "error": f"on {r['image_uri']}"} for r in records]
    return pa.Table.from_pylist([r | text for r, text in zip(records, texts, strict=True)])


def names(examples: Examples) -> tuple[list[str], list[str]]:
    parts = (examples.surest, examples.least_sure)
    surest, least = ([each["image_uri"] for each in part] for part in parts)
    return surest, least


def test_examples_are_the_surest_and_least_sure_in_order() -> None:
    confidences = zip("abcde", (0.5, 0.9, 0.1, 0.3, 0.7), strict=True)
    examples = examples_of(rows(*((name, "ok", value) for name, value in confidences)))
    assert names(examples) == (["b", "e", "a"], ["c", "d", "a"])
    assert examples.surest[0] == {"image_uri": "b", "caption": "of b", "confidence": 0.9}


def test_the_first_failure_of_each_kind_is_kept() -> None:
    first = examples_of(rows(("a", "denied", None), ("b", "denied", None), ("c", "ok", None)))
    second = examples_of(rows(("d", "denied", None), ("e", "timeout", None)))
    assert (first + second).failures == {
        "denied": {"image_uri": "a", "error": "on a"},
        "timeout": {"image_uri": "e", "error": "on e"},
    }


def test_partitions_in_any_order_have_the_same_surest_captions() -> None:
    parts = [
        examples_of(rows(*((f"{p}{n}", "ok", 0.5 + (p * n) % 7 / 20) for n in range(9))))
        for p in range(4)
    ]
    assert names(sum(parts, Examples())) == names(sum(reversed(parts), Examples()))


def test_captions_without_confidence_are_no_examples() -> None:
    assert examples_of(rows(("a", "ok", None))) == Examples()
