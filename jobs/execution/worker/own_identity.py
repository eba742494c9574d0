"""What a worker would caption with: its own files of the captioner, and the code that it loaded."""

from captioner.jobs.execution.cluster.probe import sources
from captioner.loading import identify
from captioner.options import CaptionerOptions

SOURCES = sources()  # when this process loaded them: the files may change later


def own_identity(options: CaptionerOptions) -> tuple[str, str | None]:
    """Return the identity of a captioner by the files of this machine, and SOURCES.

    Raise CaptionerError if the captioner or the GPU that it needs is missing.
    """
    if options.device == "cuda":
        from captioner.device import choose_device

        choose_device(options.device)
    return identify(options), SOURCES
