"""What people decided, and the calibrations that OUT keeps: they can be read, and fit the table."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.calibration import Calibration
from captioner.jobs.messages import how_many
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.reviews import in_force, read_reviews
from captioner.jobs.verify.files import Rows
from captioner.jobs.verify.findings import Kind, Scope
from captioner.schemas.review import REVIEW_SCHEMA, Decision

_REMEDY = "restore it from a copy: what people decided is nowhere else"
_ELSEWHERE = "a decision holds again as soon as its image has a row"


class Reviews:
    """The reviews in OUT, and those in force that concern images of the table.

    Raise the errors of a store.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._files = [
            path
            for path in scope.out.storage.files(scope.out.reviews, "*.jsonl")
            if self._is_right(path)
        ]
        self._in_force = in_force(read_reviews(scope.out, self._files))
        self._concerned = np.zeros(len(self._in_force), bool)

    def _is_right(self, path: OutPath) -> bool:
        """Check a file, and return whether it can be read."""
        with self._scope.reading(Kind.REVIEW, path, _REMEDY):
            self._check(path, read_reviews(self._scope.out, [path]))
            return True
        return False

    def _check(self, path: OutPath, reviews: pa.Table) -> None:
        for field in REVIEW_SCHEMA:
            if not field.nullable and (missing := reviews[field.name].null_count):
                what = f"has {how_many(missing, 'decision')} without {field.name}"
                self._scope.fault(Kind.REVIEW, path, what, _REMEDY)
        known = pc.is_in(reviews["decision"], pa.array([*Decision], pa.string()))
        if unknown := len(reviews) - pc.sum(known).as_py():
            what = f"has {how_many(unknown, 'decision')} of an unknown kind"
            self._scope.fault(Kind.REVIEW, path, what, _REMEDY)

    def add(self, rows: Rows) -> None:
        """Note which reviews concern these rows."""
        positions, _ = self._in_force.find(rows.table["image_uri"], rows.table["image_sha256"])
        self._concerned[positions.drop_null().to_numpy()] = True

    def check(self) -> None:
        """Count the decisions in force that concern no image of the table."""
        elsewhere = int((~self._concerned).sum())
        if elsewhere and not self._scope.is_partial:
            what = f"has {how_many(elsewhere, 'decision')} whose image is not in the table"
            self._scope.harmless(Kind.REVIEW, self._scope.out.reviews, what, _ELSEWHERE)


def check_calibrations(scope: Scope) -> None:
    """Find calibrations in OUT that cannot be read."""
    out = scope.out
    for path in out.storage.files(out.calibrations, "*.json"):
        remedy = "make it again with `captioner evaluate --calibrate`"
        with scope.reading(Kind.CALIBRATION, path, remedy):
            Calibration.from_json(json.loads(out.storage.read_bytes(path)))
