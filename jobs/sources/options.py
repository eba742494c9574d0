"""The options of a job that say which images its sources have."""

from collections.abc import Sequence
from dataclasses import dataclass

from captioner.jobs.sources.exclusion import NOTHING, Exclusion, default_exclusion
from captioner.jobs.sources.listing.filters import IsImage, is_any_name
from captioner.jobs.storage.file_types import is_image_name


@dataclass(frozen=True)
class SourceOptions:
    """The options of a job that say which images its sources have, as in JobConfig.

    `exclude` are patterns in addition to the default ones, which an empty pattern switches off.
    `uri_column` names the column of a manifest with the images' URIs, `image_column` the column of
    a Parquet file with the images. With `empty_ok`, a source may have no images.
    """

    any_extension: bool = False
    exclude: Sequence[str] = ()
    uri_column: str | None = None
    image_column: str | None = None
    empty_ok: bool = False

    @property
    def is_image(self) -> IsImage:
        """A function that returns whether a file with a given name is an image."""
        return is_any_name if self.any_extension else is_image_name

    @property
    def given_exclusion(self) -> Exclusion:
        """The exclusion by the given patterns alone, for manifests."""
        given = [*filter(None, self.exclude)]
        return Exclusion(given) if given else NOTHING

    def exclusion(self, glob: str = "", encoded: bool = False) -> Exclusion:
        """Return what is left out of a folder, or of the files that a glob below it matches."""
        defaults = [] if "" in self.exclude else default_exclusion(glob)
        return Exclusion([*filter(None, self.exclude), *defaults], encoded)


DEFAULT_OPTIONS = SourceOptions()
