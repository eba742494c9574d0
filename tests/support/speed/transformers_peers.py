"""Captioners of Hugging Face transformers with random weights, of the sizes that people use.

They show speed only. Each says exactly WORDS words, because random weights do not end a sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

BEAMS, WORDS = 3, 12
BATCH = {"cpu": 8, "cuda": 64}
BLIP_SIDE = 384


@dataclass(frozen=True)
class RandomModel:
    """A model of transformers with its image processor."""

    model: Any
    processor: Any

    @torch.inference_mode()
    def caption(self, paths: Sequence[Path]) -> None:
        """Generate the tokens of a caption for each image."""
        size = BATCH[self.model.device.type]
        for first in range(0, len(paths), size):
            pictures = [Image.open(path).convert("RGB") for path in paths[first : first + size]]
            pixels = self.processor(pictures, return_tensors="pt")["pixel_values"]
            self.model.generate(
                pixel_values=pixels.to(self.model.device, self.model.dtype),
                do_sample=False,
                num_beams=BEAMS,
                min_new_tokens=WORDS,
                max_new_tokens=WORDS,
            )


def random_blip(device: torch.device, dtype: torch.dtype) -> RandomModel:
    """Return a BLIP-base: a ViT-B at 384 pixels, and a BERT-base that attends to it."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, logging

    logging.set_verbosity_error()
    config = BlipConfig(
        text_config={"num_attention_heads": 12}, vision_config={"image_size": BLIP_SIDE}
    )
    size = {"height": BLIP_SIDE, "width": BLIP_SIDE}
    model = BlipForConditionalGeneration(config).eval()
    return RandomModel(model.to(device, dtype), BlipImageProcessor(size=size))


def random_vit_gpt2(device: torch.device, dtype: torch.dtype) -> RandomModel:
    """Return a ViT-B at 224 pixels, and a GPT-2 that attends to it."""
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        logging,
    )

    logging.set_verbosity_error()
    gpt2 = GPT2Config()
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), gpt2)
    model = VisionEncoderDecoderModel(config).eval()
    settings = model.generation_config
    settings.decoder_start_token_id = gpt2.bos_token_id
    settings.eos_token_id = settings.pad_token_id = gpt2.eos_token_id
    return RandomModel(model.to(device, dtype), ViTImageProcessor())
