"""What others decide while a person reviews: reviews that their sessions have added."""

from datetime import UTC, datetime, timedelta

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import as_reviews, read_reviews
from captioner.schemas.review import Review

CLOCKS = timedelta(minutes=1)  # by which those of two machines may differ
AT_WORK = timedelta(minutes=15)  # after a decision, its reviewer counts as still at work


class Others:
    """The files of other sessions; those that have not grown since are not read again."""

    def __init__(self, out: OutFolder, own_session: str) -> None:
        self.out, self.own = out, own_session
        self._since = datetime.now(UTC) - CLOCKS
        self._known = set[str]()
        self._versions = self._listed()
        self._latest = datetime.min.replace(tzinfo=UTC)

    def new(self) -> list[Review]:
        """Return the reviews added since the last call, in the order of time."""
        versions = self._listed()
        grown = [path for path in versions if self._versions.get(path) != versions[path]]
        found = [each for each in as_reviews(read_reviews(self.out, grown)) if self._is_new(each)]
        self._versions = versions
        self._known.update(each.id for each in found)
        self._latest = max([self._latest, *(each.reviewed_at for each in found)])
        return found

    @property
    def are_at_work(self) -> bool:
        return datetime.now(UTC) - self._latest < AT_WORK

    def _listed(self) -> dict[OutPath, str]:
        folder = self.out.reviews
        versions = self.out.storage.versions(folder, "*.jsonl").items()
        return {folder / name: each for name, each in versions if not name.startswith(self.own)}

    def _is_new(self, review: Review) -> bool:
        return review.reviewed_at > self._since and review.id not in self._known
