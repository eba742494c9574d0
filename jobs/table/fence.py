"""Who may write to OUT: one run at a time, and of that run only who still has the right.

The *lock* is held by a run for its whole life; a second run on the same OUT is refused. The
operating system frees it when the process dies, however it dies.

The *fence* keeps out workers that outlive their run or their task. When a run is killed, a worker
of it may still be about to commit; when a worker looks dead to the scheduler, it may only have
been slow. The fence file names the run that may commit, and the files of it that no longer may be
written. Workers read it under a shared lock and rename within that lock; the driver changes it
under an exclusive one. So after a change no commit that it forbids can happen any more.

Both are flock(2), which counts on local file systems, on NFS (Linux, version 4) and on cluster
file systems mounted with it (Lustre: `-o flock`). It does not count between machines on SMB mounts
or on object stores mounted as folders; there, start one run at a time yourself.

On an object store that is OUT by its URL, a run holds a lease (lease.py), and there is no
fence: no worker writes to the table. It hands its part in, as an object in the scratch folder of
its run; the driver, which alone has the lease, copies it to its place (`publish` in commit.py).
What a worker that has outlived its run or its task hands in, nobody copies.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from captioner.jobs.errors import StaleCommit
from captioner.jobs.storage.paths import OutPath, is_store
from captioner.jobs.table.layout import RunFolder


def take_fence(run: RunFolder) -> None:
    """From now on only workers of this run may commit."""
    if is_store(run.out.root):
        return
    with _locked(run.out.fence, fcntl.LOCK_EX) as file:
        file.truncate(0)
        _append(file, run.run_id)


def end_commits(run: RunFolder) -> None:
    """From now on no worker of this run may commit, nor any other before the next run starts."""
    if is_store(run.out.root):
        return
    with _locked(run.out.fence, fcntl.LOCK_EX) as file:
        file.truncate(0)
        _append(file, f"none since {run.run_id}")


def revoke(run: RunFolder, name: str, *, replaces: bool = False) -> bool:
    """Forbid the commit of part `name`; False if it has been committed already."""
    if is_store(run.out.root):
        return not run.handed_in(name, replaces=replaces).exists()
    with _locked(run.out.fence, fcntl.LOCK_EX) as file:
        if run.part(name, replaces=replaces).exists():
            return False
        _append(file, name)
        return True


@contextmanager
def commit_right(run: RunFolder, name: str) -> Iterator[None]:
    """The right to commit part `name`, for as long as the context lasts; StaleCommit if lost."""
    with _locked(run.out.fence, fcntl.LOCK_SH) as file:
        file.seek(0)
        holder, *revoked = file.read().splitlines()
        if holder != run.run_id or name in revoked:
            raise StaleCommit(f"part {name} of run {run.run_id} is no longer to be committed")
        yield


@contextmanager
def _locked(path: OutPath, kind: int) -> Iterator[IO[str]]:
    with path.open("a+") as file:
        fcntl.flock(file, kind)
        yield file


def _append(file: IO[str], line: str) -> None:
    file.write(f"{line}\n")
    file.flush()
    os.fsync(file.fileno())
