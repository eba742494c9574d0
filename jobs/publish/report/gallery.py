"""The captions that a report shows, with their pictures."""

from collections.abc import Mapping
from dataclasses import replace
from posixpath import commonprefix
from typing import Any

from captioner.jobs.publish.pictures import Picture, pictures
from captioner.jobs.publish.privacy import (
    public_text,
    public_uri,
    shortened,
    shortened_uri,
)
from captioner.jobs.publish.report.collect import RANDOM, SHOWN, Collected, Rows
from captioner.jobs.publish.report.page import Card, Page
from captioner.jobs.publish.report.words import DECISIONS
from captioner.schemas.caption_table import Status


def with_gallery(page: Page, collected: Collected) -> Page:
    """Return a page with the least sure, some, and the surest captions, and their pictures."""
    groups = _groups(collected)
    rows = [row for _, some in groups for row in some]
    made = pictures([row["image_uri"] for row in rows])
    folder = commonprefix([public_uri(row["image_uri"]) for row in rows]).rpartition("/")[0]
    gallery = [
        (title, [replace(_card(row, folder), **_picture(made, row)) for row in some])
        for title, some in groups
    ]
    return replace(page, gallery=gallery, folder=shortened_uri(folder))


def _groups(collected: Collected) -> list[tuple[str, Rows]]:
    captioned = collected.statuses[Status.OK]
    if captioned <= RANDOM or not collected.highest:
        few = sorted(collected.random, key=lambda row: -(row["confidence"] or 0))
        title = "All captions, the surest first" if captioned <= RANDOM else "Chosen at random"
        return [(title, few)] if few else []
    surest = _others(collected.highest, collected.lowest)
    some = _others(collected.random, [*collected.lowest, *surest])[:SHOWN]
    groups = [("Least sure", collected.lowest), ("Chosen at random", some), ("Surest", surest)]
    return [(title, rows) for title, rows in groups if rows]


def _others(rows: Rows, shown: Rows) -> Rows:
    """Return the rows of images that are not shown already."""
    uris = {row["image_uri"] for row in shown}
    return [row for row in rows if row["image_uri"] not in uris]


def _picture(made: Mapping[str, Picture], row: dict[str, Any]) -> dict[str, str]:
    uri = row["image_uri"]
    picture, reason = made[uri]
    return {"picture": picture, "missing": shortened(public_text(reason, uri), 100)}


def _card(row: dict[str, Any], folder: str) -> Card:
    uri, confidence, decision = public_uri(row["image_uri"]), row["confidence"], row["decision"]
    text, caption = row["text"], row["caption"] or ""
    mark, kind = ("to review", "warn") if row["needs_review"] else ("", "good")
    if decision:
        mark, kind = DECISIONS[decision], "good"
    if row["outdated"]:
        mark, kind = f"{mark}; the image has changed since", "warn"
    return Card(
        name=shortened_uri(uri[len(folder) :].lstrip("/"), 80),
        text=shortened(text or ""),
        was=shortened(caption) if decision and text != caption else "",
        confidence="" if confidence is None else _confidence(confidence),
        mark=mark,
        kind=kind,
    )


def _confidence(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 else "under 0.01"
