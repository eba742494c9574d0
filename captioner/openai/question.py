"""Questions about images, with parameters that the server accepts."""

import base64
import hashlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from captioner.openai.answer import error_of
from captioner.openai.prompt import MAX_OUTPUT_TOKENS

QUALITY = 85  # of the JPEG files that are sent
_WANTED: dict[str, object] = {
    "temperature": 0,
    "max_tokens": MAX_OUTPUT_TOKENS,
    "logprobs": True,
}
_OTHER_NAMES = {"max_tokens": "max_completion_tokens"}  # that some servers prefer

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Question:
    """A question about an image, as JPEG; the same `key` is the same question."""

    key: str
    jpeg: bytes


class Questions:
    """The questions to a model, and the parameters that its server is known to accept."""

    def __init__(self, model: str, prompt: str) -> None:
        self._model, self._prompt = model, prompt
        self._parameters = dict(_WANTED)

    def about(self, pixels: Pixels) -> Question:
        """Return the question about uint8 RGB [H, W, 3]. Thread-safe."""
        jpeg = encode_jpeg(pixels)
        asked = [self._model, self._prompt, _WANTED, hashlib.sha256(jpeg).hexdigest()]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return Question(key, jpeg)

    def body(self, question: Question) -> dict[str, Any]:
        """Return the request that asks a question."""
        image = f"data:image/jpeg;base64,{base64.b64encode(question.jpeg).decode()}"
        content = [
            {"type": "text", "text": self._prompt},
            {"type": "image_url", "image_url": {"url": image}},
        ]
        message = {"role": "user", "content": content}
        return {"model": self._model, "messages": [message], **self._parameters}

    def adapt(self, sent: dict[str, Any], refusal: bytes) -> bool:
        """Change the parameter that the refusal of a request names; return whether to ask again.

        Another request may have been refused for the same reason at the same time.
        """
        named = _named(refusal, sent)
        if named is None:
            return False
        if named in self._parameters:
            value = self._parameters.pop(named)
            if other := _OTHER_NAMES.get(named):
                self._parameters[other] = value
        return True


def encode_jpeg(pixels: Pixels) -> bytes:
    """Return the JPEG file that is sent for uint8 RGB [H, W, 3]: pixels and nothing else."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _named(refusal: bytes, sent: dict[str, Any]) -> str | None:
    """Return the parameter of a request that a refusal names, unless nothing can be changed."""
    changeable = [name for name in _WANTED if name in sent]
    text, parameter = error_of(refusal)
    if parameter in changeable:
        return parameter
    return next((name for name in changeable if re.search(rf"\b{name}\b", text)), None)
