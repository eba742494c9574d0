"""LstmCaptioner: the captioner of this package, a CNN with an attention LSTM."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from captioner.caption import Caption, Embeddings
from captioner.captioner import Measure
from captioner.device import choose_device, is_out_of_memory, stack_on, to_cpu
from captioner.errors import CaptionerError
from captioner.lstm.beam_search import Hypotheses, beam_search
from captioner.lstm.checkpoint import Checkpoint, load_checkpoint
from captioner.lstm.constraints import WordRules
from captioner.lstm.inference.folded import FoldedDecoder
from captioner.lstm.inference.fused import FusedEncoder
from captioner.lstm.model import LogitBias, WordPredictor
from captioner.lstm.wording import Found, LstmWording, Pixels, SearchResult, joined
from captioner.model_directory import find_finished
from captioner.options import CaptionerOptions
from captioner.precision import check_precision, precision_of
from captioner.search_options import SearchOptions

# A search starts thousands of kernels on a GPU; that takes the same time for few images.
BATCH_SIZES = {"cpu": 32, "cuda": 1024}
MOST_ENCODED = 256  # at once: more are no faster, and their activations take most of the memory


class LstmCaptioner(LstmWording):
    """A model, ready on a device, with its search options; embeds images only if wanted.

    It takes the model of its checkpoint over, and converts it to its precision.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        search: SearchOptions,
        *,
        precision: str,
        embeddings: bool = False,
    ) -> None:
        super().__init__(checkpoint, search, precision=precision, embeddings=embeddings)
        self.device = device
        self.batch_size = BATCH_SIZES[device.type]
        self._most_at_once = sys.maxsize  # images: of more, a GPU has no memory
        # A GPU encodes no fewer images than before, with black ones beside them if need be: for
        # another number, cuDNN compiles kernels, which takes seconds.
        self._encodes_as_many = device.type == "cuda"
        self._encoded = 1  # at once, so far
        model, int8 = checkpoint.model.to(device), checkpoint.int8_for(precision)
        dtype = torch.float32 if int8 else getattr(torch, precision)  # int8: of what stays
        self._detected = model.encoder.detected
        with torch.inference_mode():
            self.encoder = FusedEncoder(model.encoder, dtype, int8)
            self.decoder = FoldedDecoder(model.decoder, dtype, int8=int8 is not None)
        self.presence = model.presence
        self.rules = WordRules.of_vocabulary(checkpoint.vocabulary, device)

    @classmethod
    def open(cls, options: CaptionerOptions) -> "LstmCaptioner":
        """Load a bundled checkpoint by name, or a model directory.

        Raises CheckpointError if it is missing, damaged or unfinished, CaptionerError if the device
        is missing or has no instructions for the precision.
        """
        precision, embeddings = precision_of(options), options.embeddings
        assert precision  # only servers have none
        check_precision(precision, options.device)  # before whether there is such a device
        device = choose_device(options.device)
        check_precision(precision, device.type)
        checkpoint = load_checkpoint(find_finished(options.checkpoint), options.calibration)
        return cls(checkpoint, device, options.search, precision=precision, embeddings=embeddings)

    def find(self, pixels: Sequence[Pixels] | Tensor, measure: Measure) -> Found:
        """Return what the network finds in images, which may be on its device; see LstmWording.

        If they take too much of a GPU's memory, which others may use, too, half as many are tried,
        and no more from then on, whoever chose the size of batches.
        """
        half = (len(pixels) + 1) // 2
        if len(pixels) > self._most_at_once:
            return joined([self.find(pixels[:half], measure), self.find(pixels[half:], measure)])
        try:
            return self._find(pixels, measure)
        except RuntimeError as error:
            tried = max(len(pixels), self._encoded)
            if tried == 1 or not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # after the exception, which would keep tensors
        self._most_at_once = (tried + 1) // 2
        self.batch_size = min(self.batch_size, self._most_at_once)
        return self.find(pixels, measure)

    def _find(self, pixels: Sequence[Pixels] | Tensor, measure: Measure) -> Found:
        with measure("encode"):
            features = self.encode(pixels)
        with measure("search"):
            result = self._search(features)
        if not self.embeddings:
            return Found(result)
        with measure("encode"):  # after the search, which a GPU would otherwise wait for
            return Found(result, self.embed(features))

    @torch.inference_mode()
    def encode(self, pixels: Pixels | Sequence[Pixels] | Tensor) -> Tensor:
        """Encode uint8 RGB [N, image_size, image_size, 3] to grid features [N, L, C].

        A tensor must be on the device.
        """
        size = MOST_ENCODED
        if self._encodes_as_many:
            wanted = 1 << (len(pixels) - 1).bit_length()  # so that few numbers are tried
            size = min(max(wanted, self._encoded), MOST_ENCODED, self._most_at_once)
            self._encoded = size
        starts = range(0, len(pixels), size)
        # While a GPU computes one part, the next one is copied to it.
        parts = [self._encode_part(pixels[start : start + size], size) for start in starts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _encode_part(self, pixels: Pixels | Sequence[Pixels] | Tensor, size: int) -> Tensor:
        """Encode no more than `size` images."""
        images = self._on_device(pixels)
        if not self._encodes_as_many or len(images) == size:
            return self.encoder(images)
        black = images.new_zeros(size - len(images), *images.shape[1:])
        return self.encoder(torch.cat([images, black]))[: len(images)]

    def _on_device(self, pixels: Pixels | Sequence[Pixels] | Tensor) -> Tensor:
        return pixels if isinstance(pixels, Tensor) else stack_on(self.device, pixels)

    @torch.inference_mode()
    def embed(self, features: Tensor) -> Embeddings:
        """Return vectors of unit length that say what images look like, from grid features.

        float16 [N, C] for [N, L, C]: the mean over the grid, without the channels of a detector,
        which have another scale. The closer to 1 the scalar product of two, the more alike are the
        images.
        """
        pooled = features[..., : features.shape[2] - self._detected].float().mean(1)
        return torch.nn.functional.normalize(pooled, dim=1).half().cpu().numpy()

    @torch.inference_mode()
    def search(self, features: Tensor) -> list[Caption]:
        """Return a caption for each image, given grid features [N, L, C]."""
        return list(self.captions(self.find_hypotheses(features)))

    def find_hypotheses(self, features: Tensor) -> SearchResult:
        """Return the hypotheses of a search in their last order, given grid features [N, L, C]."""
        return self.chosen(self._search(features))

    @torch.inference_mode()
    def _search(self, features: Tensor) -> SearchResult:
        """Return the hypotheses of a beam search, given grid features [N, L, C]."""
        log_presence = self.presence(features)
        content = self.rules.content
        bias = LogitBias.of(self.presence, log_presence, content, self.options)
        predictor = WordPredictor(self.decoder, features, bias)
        found = beam_search(predictor, len(features), self.options, self.device, self.rules)
        *parts, log_presence = to_cpu(*found, log_presence)
        hypotheses = Hypotheses(*parts)
        if not hypotheses.scores[:, 0].isfinite().all():
            raise CaptionerError(
                f"numbers of this model are too large for {self.precision}: choose another "
                "precision, and if none will do, another checkpoint"
            )
        return SearchResult(hypotheses, log_presence)
