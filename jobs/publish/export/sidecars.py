"""A file for each image, beside it or below a folder: `photo.txt`, `photo.jpg.xmp`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.changes import Change, written
from captioner.jobs.publish.export.files import read_if_there
from captioner.jobs.publish.export.job import ExportJob, Outcome
from captioner.jobs.publish.export.locations import without_suffix
from captioner.jobs.publish.export.policy import Action, Unfit, Verdict, at_destination
from captioner.jobs.publish.export.record import Mark, Record, mark_of
from captioner.jobs.storage.file_types import container_of
from captioner.jobs.storage.uris import is_local, local_path


@dataclass(frozen=True)
class Sidecars:
    """A format with a file for each image.

    `path` returns that file by the path of the image. `read` returns the text in a file, None if it
    has none; `edited` returns the file with a text. Both may raise Unfit.
    """

    path: Callable[[Path], Path]
    read: Callable[[bytes], str | None]
    edited: Callable[[bytes | None, str], bytes]


def txt_sidecars() -> Sidecars:
    """Return the format of training tools: `photo.txt` with the text, for `photo.jpg`."""
    return Sidecars(
        path=lambda image: image.with_name(f"{without_suffix(image.name)}.txt"),
        read=lambda content: content.decode("utf-8", "surrogateescape").strip("\t\n\r "),
        edited=lambda _, text: f"{text}\n".encode(),
    )


def export_sidecars(job: ExportJob, record: Record, sidecars: Sidecars) -> Iterator[Outcome]:
    """Write the files of all images; yield what was done with each."""
    judge = _Judge(job, record, sidecars, _clashes(job, sidecars))
    rows = job.rows(decorative=False)
    judged = (judge.image(row["image_uri"], verdict) for row, verdict in rows)
    return written(judged, record, dry_run=job.dry_run)


@dataclass(frozen=True)
class _Judge:
    """What judges images by the files that are there; see _clashes."""

    job: ExportJob
    record: Record
    sidecars: Sidecars
    clashes: frozenset[int]

    def image(self, uri: str, verdict: Verdict) -> Change | Outcome:
        """Return what to write for an image, or what keeps it from being written."""
        try:
            path = _place(self.job, self.sidecars, uri)
            if self.clashes and _hashes([str(path)])[0] in self.clashes:
                raise Unfit("another image has the same file", Action.REVIEW)
            return self._file(path, uri, verdict)
        except Unfit as unfit:
            return Outcome(replace(unfit.verdict, text=verdict.text), uri)

    def _file(self, path: Path, uri: str, verdict: Verdict) -> Change | Outcome:
        content, version = read_if_there(path)
        existing = self.sidecars.read(content) if content is not None else None
        former = mark_of(existing) if existing is not None else None
        is_ours = former is not None and former in self.record.marks(str(path))
        verdict = at_destination(verdict, existing, is_ours=is_ours)
        outcome = Outcome(verdict, uri, str(path))
        if verdict.action is not Action.WRITE:
            return outcome
        mark = Mark(str(path), mark_of(verdict.text), former)
        return Change(mark, self.sidecars.edited(content, verdict.text), version, [outcome])


def _place(job: ExportJob, sidecars: Sidecars, uri: str) -> Path:
    if job.to is not None:
        return sidecars.path(Path(job.to).absolute() / job.locations.name(uri))
    if container_of(uri) != uri or not is_local(uri):
        raise UsageError(f"{uri} is not a file of this machine: give a folder with --to and --root")
    return sidecars.path(Path(local_path(uri)))


def _clashes(job: ExportJob, sidecars: Sidecars) -> frozenset[int]:
    """Return the hashes of the paths that are those of several images, such as a.jpg and a.png."""
    hashes = [_hashes(_places(job, sidecars, uris)) for uris in job.uris()]
    values, counts = np.unique(np.concatenate([_hashes([]), *hashes]), return_counts=True)
    return frozenset(values[counts > 1].tolist())


def _places(job: ExportJob, sidecars: Sidecars, uris: Sequence[str]) -> list[str]:
    places = []
    for uri in uris:
        with suppress(Unfit):
            places.append(str(_place(job, sidecars, uri)))
    return places


def _hashes(places: Sequence[str]) -> npt.NDArray[np.uint64]:
    encoded = [place.encode("utf-8", "surrogateescape").decode("latin-1") for place in places]
    return pd.util.hash_array(np.array(encoded, dtype=object), categorize=False)
