"""Archives of images with their texts, as WebDataset reads them: `{key}.jpg`, `.txt` and `.json`.

An image's key is its position among the chosen rows, and an archive has those of IMAGES positions,
so that one more or one fewer text changes one archive. Each is written whole, or not at all.
"""

import hashlib
import io
import tarfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.publish.export.files import NewFile, new_file, read_version, usage_errors
from captioner.jobs.publish.export.job import ExportJob, Outcome, Row
from captioner.jobs.publish.export.one_file.lines import as_json
from captioner.jobs.publish.export.policy import Action, Unfit, Verdict
from captioner.jobs.publish.export.record import Mark, Record, mark_of
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.jobs.storage.look_ahead import map_ahead

IMAGES = 1_000  # in an archive, at most
THREADS = 8  # that fetch images
AHEAD = 16  # images that wait in memory, at most
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
_STAYS = "; the earlier archive stays"


@dataclass(frozen=True)
class _Sample:
    """An image of an archive, and the files with its texts, by suffix."""

    key: str
    uri: str
    sha256: str | None
    suffix: str
    texts: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, position: int, row: Row, text: str, columns: Sequence[str]) -> "_Sample":
        values = {**row, "text": text}
        fields = as_json({name: values[name] for name in columns})
        name = row["format"] or "jpg"
        return cls(
            key=f"{position:09d}",
            uri=row["image_uri"],
            sha256=row["image_sha256"],
            suffix=_SUFFIXES.get(name, name.lower()),
            texts=(("txt", text.encode()), ("json", fields.encode())),
        )

    def fetch(self) -> bytes:
        """Return the bytes of the image; raise Unfit if they are gone, or others than captioned."""
        try:
            data = fetch_image(self.uri, MAX_BYTES)
        except FetchError as error:
            raise Unfit(f"{error.status}: {error}") from error
        if self.sha256 is not None and hashlib.sha256(data).hexdigest() != self.sha256:
            raise Unfit("the image has changed since", Action.REVIEW)
        return data


_Missing: TypeAlias = tuple[_Sample, Unfit]  # an image that is not in the archive, and why


def export_webdataset(job: ExportJob, record: Record) -> Iterator[Outcome]:
    """Write the archives; yield what was not written of each image, and each archive."""
    columns, folder = job.chosen_columns(), Path(str(job.to)).absolute()
    used: set[str] = set()
    rows = enumerate(job.rows((*columns, "image_sha256", "format"), decorative=False))
    for number, judged in groupby(rows, key=lambda numbered: numbered[0] // IMAGES):
        samples = []
        for position, (row, verdict) in judged:
            if verdict.action is Action.WRITE:
                samples.append(_Sample.of(position, row, verdict.text, columns))
            else:
                yield Outcome(verdict, row["image_uri"])
        if samples:
            path = folder / f"{number:06d}.tar"
            used.add(str(path))
            yield from _archive(path, samples, record, job.dry_run)
    yield from _left_over(folder, used, record, job.dry_run)


def _archive(
    path: Path, samples: Sequence[_Sample], record: Record, dry_run: bool
) -> Iterator[Outcome]:
    """Write an archive, unless it is there with the same images and texts already."""
    if _digest(path, samples) in record.marks(_place(path)):
        yield Outcome(Verdict(Action.UNCHANGED), place=str(path), images=len(samples))
    elif dry_run:
        yield Outcome(Verdict(Action.WRITE), place=str(path), images=len(samples))
    else:
        yield from _written(path, samples, record)


def _written(path: Path, samples: Sequence[_Sample], record: Record) -> Iterator[Outcome]:
    """Write an archive, unless the earlier one has an image that cannot be fetched now."""
    with new_file(path, record, dry_run=False) as file:
        included, missing = _fill(file, samples)
        stays = _stays(path, included, missing, record)
        if included and not stays:
            action = file.finish()
    for sample, unfit in missing:
        reason = unfit.verdict.reason + (_STAYS if stays else "")
        yield Outcome(replace(unfit.verdict, reason=reason), sample.uri, str(path))
    if stays:
        verdict = Verdict(Action.SKIP, reason=f"an image of its archive was not fetched{_STAYS}")
        yield Outcome(verdict, place=str(path), images=len(included))
    elif included:
        with record.writing([Mark(_place(path), _digest(path, included))]):
            pass
        yield Outcome(Verdict(action), place=str(path), images=len(included))


def _fill(file: NewFile, samples: Sequence[_Sample]) -> tuple[list[_Sample], list[_Missing]]:
    """Write the images that can be fetched, and their texts; return these samples and the rest."""
    included: list[_Sample] = []
    missing: list[_Missing] = []
    # Of a stream, tarfile only calls `write`.
    with tarfile.open(fileobj=file, mode="w|") as archive:  # type: ignore[call-overload]
        for sample, data in _fetched(samples):
            if isinstance(data, Unfit):
                missing.append((sample, data))
            else:
                _add(archive, sample, data)
                included.append(sample)
    return included, missing


def _stays(
    path: Path, included: Sequence[_Sample], missing: Sequence[_Missing], record: Record
) -> bool:
    """Return whether a new archive would lose images of an earlier one that may come back."""
    if not missing or not path.exists() or not _is_ours(path, record):
        return False
    lost = [sample for sample, unfit in missing if unfit.verdict.action is Action.SKIP]
    return not included or bool(lost and _has_one(path, lost))


def _has_one(path: Path, samples: Sequence[_Sample]) -> bool:
    """Return whether an archive has one of the images, by its bytes or else by its key."""
    wanted = {sample.sha256 or sample.key for sample in samples}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            digest = hashlib.sha256(file.read()).hexdigest() if file else None
            if {digest, member.name.partition(".")[0]} & wanted:
                return True
    return False


def _is_ours(path: Path, record: Record) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in record.marks(str(path))


def _place(path: Path) -> str:
    """Return where the record has the digest of what an archive was made from."""
    return f"{path}#samples"


def _digest(path: Path, samples: Sequence[_Sample]) -> str:
    """Return the digest of what an archive was made from, and of the file that it became."""
    return mark_of(f"{samples} {read_version(path)}")


def _fetched(samples: Sequence[_Sample]) -> Iterator[tuple[_Sample, bytes | Unfit]]:
    """Yield each sample with its image, fetched ahead by threads, or the reason for none."""
    with ThreadPoolExecutor(THREADS) as pool:
        futures = map_ahead(pool, _Sample.fetch, samples, AHEAD)
        for sample, future in zip(samples, futures, strict=True):
            try:
                yield sample, future.result()
            except Unfit as unfit:
                yield sample, unfit


def _add(archive: tarfile.TarFile, sample: _Sample, data: bytes) -> None:
    for suffix, content in ((sample.suffix, data), *sample.texts):
        member = tarfile.TarInfo(f"{sample.key}.{suffix}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _left_over(
    folder: Path, used: Collection[str], record: Record, dry_run: bool
) -> Iterator[Outcome]:
    """Remove the archives of former exports that no image is left for."""
    for place in record.places(str(folder)):
        path = Path(place)
        if path.parent != folder or path.suffix != ".tar" or place in used or not path.exists():
            continue
        is_ours = _is_ours(path, record)
        if is_ours and not dry_run:
            with usage_errors(path):
                path.unlink()
        action = Action.WRITE if is_ours else Action.KEEP
        reason = "removed: no image is left for it" if is_ours else "a person has changed it"
        yield Outcome(Verdict(action, reason=reason), place=place, images=0)
