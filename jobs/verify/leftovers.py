"""What killed commands have left in OUT, and files that no command of this package writes."""

from collections.abc import Sequence

from captioner.jobs.messages import how_many
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.threshold import Threshold, latest, new_threshold
from captioner.jobs.verify.files import TableFile
from captioner.jobs.verify.findings import Kind, Scope

_TIDIED = "the next run, compact or --repair {}"
_ANSWERS = "a run with that captioner uses what is here, and then removes it"


def check_leftovers(scope: Scope) -> None:
    """Find what the next command that writes to OUT would tidy up. Nobody may be at work in it."""
    out = scope.out
    for name, what, deed in (
        ("scratch", "unfinished files of a run that was killed", "removes them"),
        ("replacements", "rows of a run that was killed", "puts them into the table"),
    ):
        for folder in out.storage.folders_below(out.runs, name):
            if name == "replacements" and not out.storage.files(folder, "*"):
                continue  # of a run that failed before it wrote any
            scope.harmless(Kind.LEFT, folder, what, _TIDIED.format(deed))
    for path, what in (
        (out.merge_journal, "a merge of files was interrupted"),
        (out.new_threshold, "a new threshold was announced, but not all rows are marked by it"),
    ):
        if out.storage.exists(path):
            scope.harmless(Kind.LEFT, path, what, _TIDIED.format("finishes that"))
    _check_lock(scope)
    _check_runs(scope)
    if answers := len(out.storage.files(out.answers, "*.json")):
        what = f"has {how_many(answers, 'paid answer')} for the next run"
        scope.harmless(Kind.LEFT, out.answers, what, _ANSWERS)


def _check_lock(scope: Scope) -> None:
    out = scope.out
    if dead := out.storage.holder(out.lock, alive=False):
        what = f"the lock of {dead}, which was killed"
        scope.harmless(Kind.LEFT, out.lock, what, _TIDIED.format("takes it over"))


def _check_runs(scope: Scope) -> None:
    """Find folders of runs that nobody described, as they have no record of a run."""
    out = scope.out
    own = {path.name for path in (out.lock, out.fence, out.merge_journal, out.new_threshold)}
    for entry in out.storage.files(out.runs, "*"):
        if entry.name in own or not entry.name or _is_run(RunFolder(out, entry.name)):
            continue
        scope.harmless(Kind.LEFT, entry, "has no record of a run", "remove it if nobody needs it")


def _is_run(run: RunFolder) -> bool:
    records: Sequence[OutPath] = (run.report, run.job_file, run.events)
    return any(run.storage.exists(path) for path in records) or any(
        run.storage.is_folder(folder) for folder in (run.scratch, run.replacements)
    )


def check_thresholds(scope: Scope, files: Sequence[TableFile]) -> None:
    """Find files whose rows are marked by another threshold than the table's.

    Those that cannot be read whole cannot be marked either.
    """
    files = [file for file in files if file.path not in scope.unread]
    remedy = "--repair marks them again" if scope.is_partial else _TIDIED.format("marks them again")
    thresholds: list[Threshold | None] = [file.threshold for file in files]
    wanted = latest(thresholds)
    with scope.reading(Kind.LEFT, scope.out.new_threshold, "remove it"):
        if wanted is None or new_threshold(scope.out):
            return
    for file in files:
        if file.threshold != wanted:
            what = f"its rows are marked by another threshold than {wanted}"
            scope.fault(Kind.THRESHOLD, file.path, what, remedy)
