"""The records of a task's images, as they were listed, and the numbers of their rows."""

from collections.abc import Collection

import pyarrow as pa

from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.planning.partitions import read_partition
from captioner.schemas.image_record import IMAGE_URI


def planned(task: Task) -> pa.Table:
    """Return the records of a task."""
    partition = read_partition(task.run.scratch, task.partition)
    return (
        partition.slice(task.start, task.images) if task.left is None else partition.take(task.left)
    )


def row_numbers(task: Task, plan: pa.Table, uris: Collection[str]) -> list[int]:
    """Return the rows of some images of a task, given its records and a set of URIs."""
    pairs = zip(task.rows, plan[IMAGE_URI].to_pylist(), strict=True)
    return [row for row, uri in pairs if uri in uris]
