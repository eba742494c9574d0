"""Who looks on while a job runs: the progress that people see, and the file of metrics."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import ExitCode, exit_code_of
from captioner.jobs.execution.record.metrics import Metrics
from captioner.jobs.execution.record.progress import LISTING, Moment, every, showing
from captioner.jobs.execution.record.recorder import Recorder

METRICS_SECONDS = 15.0  # between the times that the file of metrics is written


class Observer:
    """The passes of a job as they are seen from outside, from before the first run has begun."""

    def __init__(self, config: JobConfig) -> None:
        self.quiet = config.quiet
        path = config.metrics
        self.metrics = None if path is None else Metrics(Path(path), str(config.out))
        self.recorder: Recorder | None = None
        self.exit_code = int(ExitCode.DONE)

    def begin(self, recorder: Recorder) -> None:
        """Watch a run that begins."""
        self.recorder = recorder
        if self.metrics:
            self.metrics.recorders.append(recorder)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show the progress of a pass, and write its metrics, while the context lasts."""
        self.recorder = None
        with ExitStack() as stack:
            if self.metrics:
                stack.enter_context(every(METRICS_SECONDS, self.metrics.write))
            stack.enter_context(showing(self._moment, quiet=self.quiet))
            yield
        if self.recorder and self.recorder.ended:
            self.exit_code = self.exit_code or self.recorder.ended.exit_code

    def _moment(self) -> Moment:
        if self.recorder is None:
            return Moment(time.monotonic(), phase=LISTING)
        return self.recorder.moment()


@contextmanager
def observing(config: JobConfig) -> Iterator[Observer]:
    """Provide an observer of a job; record how the job ends, if it has metrics."""
    observer = Observer(config)
    try:
        yield observer
    except BaseException as error:
        if not isinstance(error, GeneratorExit):  # else nobody wants the second pass
            observer.exit_code = exit_code_of(error)
        raise
    finally:
        if observer.metrics:
            observer.metrics.end(observer.exit_code)
