"""OpenaiCaptioner: a model on a server with an OpenAI-compatible chat API that takes images."""

import asyncio
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Self

from PIL import Image

from captioner.budget import Budget
from captioner.captioner import Answer, Captioner, Measure
from captioner.errors import MissingExtraError
from captioner.house_rules import HouseRules
from captioner.identity import computing, identity
from captioner.image import DecodedImage, decode_fitted
from captioner.openai.prompt import openai_identity, openai_settings, prompt_of
from captioner.options import CaptionerOptions

try:
    from captioner.openai.asking import Asker
    from captioner.openai.client import Client
    from captioner.openai.in_flight import MOST
except ImportError as error:
    raise MissingExtraError("a server needs httpx: pip install 'captioner[openai]'") from error

BATCH_SIZE = 2 * MOST  # so that few slots are empty while the last images of a batch are asked
DEADLINE = 120.0  # seconds for one request
LOOK_SECONDS = 1.0  # between two looks whether somebody waits for the answers
PATIENCE = 120.0  # seconds without an answer, until the server counts as down


class OpenaiCaptioner(Captioner):
    """A model that a server has.

    `deadline` is in seconds for a request, `patience` in seconds for an outage. Captions have
    log-probabilities only if the server tells them.
    """

    batch_size = BATCH_SIZE

    def __init__(
        self, options: CaptionerOptions, *, deadline: float = DEADLINE, patience: float = PATIENCE
    ) -> None:
        self._options = options
        self.budget = Budget()
        self.identity = identity(openai_identity(options), None)
        self.house_rules = HouseRules(
            max_characters=options.search.max_characters, language=options.language
        )
        client = Client(options.base_url, options.api_key, deadline)
        self._asker = Asker(client, options.name, prompt_of(options), self.house_rules, patience)
        self._loop = _loop_in_a_thread()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    @classmethod
    def open(cls, options: CaptionerOptions) -> Self:
        """Return the captioner; nothing is asked yet.

        Raises CheckpointError for a base URL or key that cannot be one.
        """
        return cls(options)

    @property
    def settings(self) -> Mapping[str, object]:
        """The prompt and what else changes the captions, to record with them."""
        return {**openai_settings(self._options), **computing(None)}

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        """Shrink an image to `send_pixels` on its longer side; see Captioner."""
        return decode_fitted(image, self._options.send_pixels, self.limits)

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Answer]:
        """Ask about prepared images; see Captioner.

        Raises CheckpointError if the server refuses the key, has no such model, or if none of its
        first answers becomes a caption.
        """
        with measure("ask"):
            pixels = [image.pixels for image in images]
            asking = self._asker.ask(pixels, self.budget, self.answers)
            future = asyncio.run_coroutine_threadsafe(asking, self._loop)
            try:
                while not wait([future], LOOK_SECONDS).done:
                    if self.is_abandoned():
                        asyncio.run_coroutine_threadsafe(self._asker.stop(), self._loop)
                return future.result()
            finally:
                future.cancel()  # after Ctrl-C, for one


def _loop_in_a_thread() -> asyncio.AbstractEventLoop:
    """Return an event loop of its own: the caller may have another, as in a notebook."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(MOST))
    threading.Thread(target=_run, args=(loop,), name="openai", daemon=True).start()
    return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
