"""The results of tasks whose worker cannot load the captioner, start threads, caption, or write."""

from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.jobs.errors import MACHINE, ExitCode, with_remedy
from captioner.jobs.execution.tasks.task import Outage, PartitionResult, Task
from captioner.jobs.storage.failures import StoreError, without_secrets


def cannot_load(task: Task, error: Exception) -> PartitionResult:
    """Return that this worker of a cluster is unfit, or that the job ends, on one machine."""
    if isinstance(error, CaptionerUnavailable):
        return cannot_caption(task, error)
    remedy = ": give it more memory" if isinstance(error, MemoryError) else ""
    reason = f"cannot load the captioner ({error!r}){remedy}"
    if task.settings.identity is not None:
        return PartitionResult(task.name, unfit=f"it {reason}")
    if isinstance(error, CaptionerError):
        return cannot_caption(task, error)
    return PartitionResult(task.name, error=f"a worker {reason}", fatal=ExitCode.FAULT)


def cannot_start(task: Task, error: OSError) -> PartitionResult:
    """Return that all images of a task are left, since no thread can start to fetch them."""
    outage = Outage(with_remedy(error), task.images)
    return PartitionResult(task.name, left=task.rows, down={MACHINE: outage})


def cannot_caption(task: Task, error: CaptionerError) -> PartitionResult:
    """Return that the job ends, since the captioner would fail with any image."""
    is_temporary = isinstance(error, CaptionerUnavailable)
    code = ExitCode.TEMPORARY if is_temporary else ExitCode.USAGE
    return PartitionResult(task.name, error=str(error), fatal=code)


def has_changed(task: Task, identity: str) -> PartitionResult:
    """Return that the job ends, since the files of its captioner have changed."""
    change = f"from {task.settings.planned_identity} to {identity}"
    message = f"the captioner has changed since the run began, {change}: run again"
    return PartitionResult(task.name, error=message, fatal=ExitCode.TEMPORARY)


def cannot_write(task: Task, error: OSError) -> PartitionResult:
    """Return that the job ends, since no task can write."""
    message = f"cannot write to {task.run.out.root}: {without_secrets(with_remedy(error))}"
    return PartitionResult(task.name, error=message, fatal=_exit_code(task, error))


def _exit_code(task: Task, error: OSError) -> ExitCode:
    """Return TEMPORARY if a store may accept later what it refuses now."""
    if task.run.storage.local_path(task.part):
        return ExitCode.FAULT
    is_final = isinstance(error, StoreError) and error.is_final
    return ExitCode.USAGE if is_final else ExitCode.TEMPORARY
