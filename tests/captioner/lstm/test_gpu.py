"""The search as a GPU runs it, on tensors without content: they need no GPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from captioner.lstm.beam_search import GPU_CHECK_INTERVAL, beam_search
from captioner.lstm.constraints import WordRules
from captioner.lstm.encoder import Encoder
from captioner.lstm.inference.folded import FoldedDecoder
from captioner.lstm.inference.fused import FusedEncoder
from captioner.lstm.model import CaptionModel, LogitBias, ModelConfig, WordPredictor
from captioner.lstm.vocabulary import SPECIAL_WORDS, Vocabulary
from captioner.search_options import SearchOptions

META = torch.device("meta")
VOCABULARY = Vocabulary((*SPECIAL_WORDS, "a", "photo", "of", "dog", "runs", "on"))
# Each reads a result, or makes a tensor of Python's numbers.
WAIT = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.lift_fresh.default,
}


class Waits(TorchDispatchMode):
    """The operations for which a program waits until a GPU has done all else."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*arguments, **(options or {}))
        tensors = [each for each in (*arguments, result) if isinstance(each, torch.Tensor)]
        devices = {each.device for each in tensors if each.ndim}
        if function in WAIT or len(devices) > 1:
            self.seen.append(str(function))
        return result


def test_convolutions_do_not_round_float32_to_tf32() -> None:
    encoder = Encoder("efficientnet_lite0").eval().to(META)
    allowed = []
    for convolution in (each for each in encoder.modules() if isinstance(each, nn.Conv2d)):
        convolution.register_forward_hook(
            lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
        )
    former = torch.backends.cudnn.allow_tf32
    with torch.inference_mode():
        fused = FusedEncoder(encoder, torch.float32)
        fused(torch.zeros(2, 64, 64, 3, dtype=torch.uint8, device=META))
    assert len(allowed) > 40
    assert not any(allowed)
    assert torch.backends.cudnn.allow_tf32 is former


def test_until_the_search_looks_for_done_images_nothing_waits_for_a_gpu() -> None:
    options = SearchOptions(
        beam_size=3,
        min_length=2,
        max_length=GPU_CHECK_INTERVAL - 1,
        block_ngram=2,
        max_characters=20,
    )
    config = ModelConfig(encoder="mobilenet_v3_small", image_size=64, hidden=32, heads=4)
    model = CaptionModel(config, len(VOCABULARY)).eval().to(META)
    rules = WordRules.of_vocabulary(VOCABULARY, META)
    pixels = torch.zeros(5, 64, 64, 3, dtype=torch.uint8, device=META)
    with torch.inference_mode():
        encoder = FusedEncoder(model.encoder, torch.float16)
        decoder = FoldedDecoder(model.decoder, torch.float16)
        with Waits() as waits:
            features = encoder(pixels)
            log_presence = model.presence(features)
            bias = LogitBias.of(model.presence, log_presence, rules.content, options)
            predictor = WordPredictor(decoder, features, bias)
            found = beam_search(predictor, 5, options, META, rules)
    assert found.tokens.shape == (5, 3, GPU_CHECK_INTERVAL)
    assert waits.seen == []
