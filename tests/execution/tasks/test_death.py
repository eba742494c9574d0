"""What follows the death of a worker, by what its watchdog has written."""

import json
from pathlib import Path

from captioner.jobs.execution.tasks.death import Death, after_death, death_file, read_death
from captioner.jobs.execution.tasks.task import PARTS, Task
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.table.layout import OutFolder
from captioner.options import CaptionerOptions
from captioner.schemas.caption_table import Status

RUN = OutFolder(Path("out")).new_run()
SETTINGS = WorkerSettings(CaptionerOptions("flickr8k", "cpu"), 1000)
TASK = Task(RUN, SETTINGS, 0, 500, 0, 500)


def rows(tasks: list[Task]) -> list[int]:
    return sorted(row for task in tasks for row in task.rows)


def test_suspects_are_captioned_alone_and_the_others_together() -> None:
    first, second, rest = after_death(TASK, Death("crashed", suspects=[3, 5]))
    assert [first.rows, second.rows, rest.images] == [(3,), (5,), 498]
    assert rows([first, second, rest]) == list(range(500))
    assert len({task.name for task in (TASK, first, second, rest)}) == 4
    (again,) = after_death(first, Death("crashed", suspects=[3]))
    assert (again.rows, again.crash_reason) == ((3,), None)  # perhaps it was killed from outside
    (crashed,) = after_death(again, Death("crashed", suspects=[3]))
    assert (crashed.rows, crashed.crash_reason, crashed.status) == (
        (3,),
        "the process that opened it died",
        Status.CRASHED,
    )
    *_, second, _ = after_death(TASK, Death("memory", suspects=[3, 5], memory=2**30))
    (eater,) = after_death(second, Death("memory", suspects=[5], memory=2**30))
    assert (eater.status, eater.crash_reason) == (
        Status.OUT_OF_MEMORY,
        "its process needed more than 1024 MiB of memory",
    )


def test_an_image_is_convicted_later_if_its_process_was_killed_and_perhaps_from_outside() -> None:
    (task, *_), deaths = after_death(TASK, Death("killed", suspects=[3])), 0
    while task.crash_reason is None:
        (task,), deaths = after_death(task, Death("killed", suspects=[3])), deaths + 1
    assert (deaths, task.status) == (5, Status.CRASHED)
    (alone, *_) = after_death(TASK, Death("killed", suspects=[3]))
    (alone,) = after_death(alone, Death("killed"))  # while no image was open
    (crashed,) = after_death(alone, Death("crashed", suspects=[3]))
    assert crashed.crash_reason == "the process that opened it died"


def test_an_image_that_was_late_gets_its_row_and_those_in_doubt_are_captioned_alone() -> None:
    late, doubtful, rest = after_death(TASK, Death("timeout", [7], [8], seconds=60))
    assert (late.rows, late.status) == ((7,), Status.TIMEOUT)
    assert late.crash_reason == "opening it took more than 60 s"
    assert (doubtful.rows, doubtful.crash_reason) == ((8,), None)
    assert rows([late, doubtful, rest]) == list(range(500))
    (last,) = after_death(doubtful, Death("timeout", [8], seconds=60))
    assert (last.rows, last.status) == ((8,), Status.TIMEOUT)


def test_a_task_is_split_if_no_image_was_open_or_suspicion_leads_nowhere() -> None:
    assert len(after_death(TASK, Death())) == PARTS
    task, deaths = TASK, 0
    while len(tasks := after_death(task, Death(suspects=[task.rows[0]]))) == 2:
        task, deaths = tasks[-1], deaths + 1
    assert 1 < deaths < 10
    assert rows(tasks) == list(task.rows)


def test_what_the_watchdog_writes_is_read_once_it_is_there(tmp_path: Path) -> None:
    run = OutFolder(tmp_path).new_run()
    run.create()
    task = Task(run, SETTINGS, 0, 500, 0, 500)
    assert read_death(task, 0) is None
    found = {"kind": "memory", "late": [], "suspects": [4], "seconds": 60, "memory": 2**30}
    Path(str(death_file(task))).write_text(json.dumps(found))
    assert read_death(task, 0) == Death("memory", [], [4], 60, 2**30)
