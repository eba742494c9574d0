"""The tasks of a plan, and those that follow a failure."""

from pathlib import Path

from captioner.jobs.execution.tasks.task import (
    PARTS,
    Task,
    after_failure,
    continued,
    resubmitted,
    task_counts,
    tasks_of,
)
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.planning.plan import Plan
from captioner.jobs.table.layout import OutFolder
from captioner.options import CaptionerOptions

RUN = OutFolder(Path("out")).new_run()
SETTINGS = WorkerSettings(CaptionerOptions("flickr8k", "cpu"), 1000)


def task(images: int) -> Task:
    return next(tasks_of(Plan(partition_sizes=[images], first_redo=1), RUN, SETTINGS, 1))


def test_the_tasks_of_a_plan_are_its_partitions() -> None:
    tasks = list(tasks_of(Plan(partition_sizes=[500, 500, 3], first_redo=3), RUN, SETTINGS, 1))
    assert [(task.partition, task.start, task.stop) for task in tasks] == [
        (0, 0, 500),
        (1, 0, 500),
        (2, 0, 3),
    ]


def test_a_job_that_is_small_for_its_workers_has_tasks_for_all_of_them() -> None:
    tasks = list(tasks_of(Plan(partition_sizes=[40], first_redo=0), RUN, SETTINGS, workers=2))
    assert [(task.start, task.stop) for task in tasks] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert len({task.name for task in tasks}) == 4 and all(task.replaces for task in tasks)
    assert sum(task_counts([500] * 20, workers=64)) >= 2 * 64


def test_tasks_are_not_divided_for_nothing() -> None:
    assert task_counts([40], workers=1) == [1]
    assert task_counts([500] * 100, workers=8) == [1] * 100
    assert task_counts([8, 19], workers=64) == [1, 1]
    assert task_counts([], workers=4) == []


def test_a_partition_that_fails_is_tried_again_whole_and_then_in_parts() -> None:
    (retry,) = after_failure(task(500), "error", died=False)
    assert (retry.images, retry.name) == (500, task(500).name)
    assert retry.key != task(500).key
    parts = after_failure(retry, "error", died=False)
    assert len(parts) == PARTS
    rows = [row for part in parts for row in range(part.start, part.stop)]
    assert rows == list(range(500))
    assert len({part.name for part in parts} | {retry.name}) == PARTS + 1


def test_a_partition_whose_process_died_is_split_at_once() -> None:
    assert len(after_failure(task(500), "died", died=True)) == PARTS


def test_an_image_whose_process_died_twice_gets_a_crash_reason() -> None:
    (retry,) = after_failure(task(1), "died", died=True)
    assert retry.crash_reason is None
    (last,) = after_failure(resubmitted(retry), "died", died=True)
    assert last.crash_reason == "died"
    (retry,) = after_failure(last, "disk", died=False)  # of recording it
    assert retry.crash_reason == "died"
    assert after_failure(retry, "disk", died=False) == []


def test_three_rounds_find_one_image_of_a_partition() -> None:
    rounds, suspects = 0, [task(500)]
    while suspects[0].images > 1:
        suspects = after_failure(suspects[0], "died", died=True)
        rounds += 1
    assert rounds == 3


def test_the_images_that_are_left_have_parts_of_their_own() -> None:
    left = continued(task(50), [3, 7, 8, 30])
    assert (left.rows, left.images, left.rounds) == ((3, 7, 8, 30), 4, 1)
    again = continued(left, [7, 30])
    parts = after_failure(left, "error", died=True)
    assert [part.rows for part in parts] == [(3,), (7,), (8,), (30,)]
    of_all = continued(task(50), range(50))
    names = {each.name for each in [task(50), left, again, of_all, *parts]}
    assert len(names) == 8
