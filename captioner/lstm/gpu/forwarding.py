"""ForwardingCaptioner: the captioner of a worker for which a GPU process searches."""

from collections.abc import Sequence

from captioner.captioner import Measure
from captioner.lstm.checkpoint import load_checkpoint
from captioner.lstm.gpu.link import BATCH_SIZE, Link
from captioner.lstm.gpu.place import Place
from captioner.lstm.wording import Found, LstmWording, Pixels
from captioner.model_directory import find_finished
from captioner.options import CaptionerOptions
from captioner.precision import precision_of


class ForwardingCaptioner(LstmWording):
    """A captioner that decodes and words; it never opens a GPU, and keeps no weights."""

    batch_size = max_batch_size = BATCH_SIZE

    def __init__(self, options: CaptionerOptions, place: Place) -> None:
        """Read the model, and look for its process at a `place` once there is an image."""
        precision = precision_of(options)
        assert precision  # only servers have none
        checkpoint = load_checkpoint(find_finished(options.checkpoint), options.calibration)
        super().__init__(
            checkpoint, options.search, precision=precision, embeddings=options.embeddings
        )
        self._link = Link(place, self.identity)

    def find(self, pixels: Sequence[Pixels], measure: Measure) -> Found:
        """Return what the GPU process finds in images; see LstmWording."""
        with measure("gpu"):
            return self._link.find(pixels)
