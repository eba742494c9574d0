"""Ask a server about images until each has an answer, or it is clear that it gets none now."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from captioner.answers import AnswerStore
from captioner.budget import Budget
from captioner.caption import Caption
from captioner.captioner import Answer
from captioner.errors import BudgetSpent, CaptionerUnavailable, CheckpointError, RejectedCaption
from captioner.house_rules import HouseRules
from captioner.openai.answer import Garbled, answer_of, shown, status_of, usage_of
from captioner.openai.client import Client, Reply, Trouble
from captioner.openai.in_flight import InFlight
from captioner.openai.question import Pixels, Question, Questions

FIRST_SECONDS = 10.0  # to wait for a server that nobody has reached yet
PAUSES = 12  # in an outage, about
FIRST_ANSWERS = 10  # if none of them becomes a caption, no other will
MAX_BLAME = 4  # of an image, before the server is asked about another one
_HARMLESS = np.full((256, 256, 3), 127, np.uint8)

_REFUSED = (400, 422)  # because of a parameter, perhaps
_BUSY = (408, 425, 429, 503)
_REMEDIES = {
    401: "refuses the key: set OPENAI_API_KEY",
    403: "refuses the key: set OPENAI_API_KEY",
    404: "has no model {model!r}, or no chat API at this address: set OPENAI_BASE_URL",
}


class Patience:
    """How long a server may be out before it is given up."""

    def __init__(self, seconds: float, server: str) -> None:
        self.seconds, self._server = seconds, server
        self._since = time.monotonic()
        self._ever = self._is_over = False

    def begin(self) -> None:
        """Begin a batch: nobody waited for an answer before it."""
        self._since = time.monotonic()

    def replied(self) -> None:
        """Note that the server works."""
        self._since = time.monotonic()
        self._ever, self._is_over = True, False

    def endure(self, trouble: Trouble) -> None:
        """Raise CaptionerUnavailable if it has lasted too long, or will."""
        is_new = trouble.is_unreachable and not self._ever
        limit = min(FIRST_SECONDS, self.seconds) if is_new else self.seconds
        wait = trouble.retry_after or 0.0
        if wait > self.seconds:
            self._is_over = True
            raise CaptionerUnavailable(f"{self._server} asks to wait {wait:.0f} s: {trouble}")
        if self._is_over or time.monotonic() - self._since >= limit:
            self._is_over = True
            raise CaptionerUnavailable(f"{self._server} does not answer: {trouble}")


class Asker:
    """The requests to one server; all calls belong to one event loop."""

    def __init__(
        self, client: Client, model: str, prompt: str, rules: HouseRules, patience: float
    ) -> None:
        self._client, self._model, self._rules = client, model, rules
        self._questions = Questions(model, prompt)
        self._patience = Patience(patience, client.name)
        self._in_flight = InFlight(longest_pause=patience / PAUSES)
        self._is_proven = False  # an answer has become a caption
        self._faults: list[str] = []  # of the answers before
        self._budget: Budget
        self._answers: AnswerStore

    async def ask(
        self, images: Sequence[Pixels], budget: Budget, answers: AnswerStore
    ) -> list[Answer]:
        """Return the answer about each image, uint8 RGB [H, W, 3]; see Captioner.answer."""
        self._budget, self._answers = budget, answers
        self._patience.begin()
        self._in_flight.begin()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(image)) for image in images]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def stop(self) -> None:
        """Ask nothing more about these images; what is in flight is still answered and kept."""
        await self._in_flight.stop(CaptionerUnavailable("nobody waits for an answer"))

    async def _ask(self, image: Pixels) -> Answer:
        question = await asyncio.to_thread(self._questions.about, image)
        kept = await asyncio.to_thread(self._answers.get, question.key)
        if answer := _read(kept):
            return answer
        try:
            return await self._until_answered(question)
        except CaptionerUnavailable as error:
            if not isinstance(error, BudgetSpent):
                await self._in_flight.stop(error)
            return error

    async def _until_answered(self, question: Question) -> Answer:
        """Return the answer to a question; raise CaptionerUnavailable if none can be had."""
        blame, garbled = 0, 0
        while True:
            try:
                answer = await self._attempt(question, is_last=garbled > 0)
            except Trouble as trouble:
                blame += trouble.blame
                if blame >= MAX_BLAME:
                    if await self._answers_otherwise():
                        return RejectedCaption(f"no answer about this image alone: {trouble}")
                    blame = 0
                continue
            if isinstance(answer, Garbled) and not garbled:
                garbled += 1
            elif answer is not None:
                return answer

    async def _attempt(self, question: Question, *, is_last: bool) -> Answer | None:
        """Ask once, and keep the answer; None if the question must be put in another way.

        Raises Trouble after the pause that it makes necessary.
        """
        body = self._questions.body(question)
        try:
            async with self._in_flight.slot() as began:
                reply = await self._send(body)
                return await self._settled(question, body, reply, is_last=is_last)
        except Trouble as trouble:
            await self._pause(trouble, began)
            raise

    async def _settled(
        self, question: Question, body: dict[str, Any], reply: Reply, *, is_last: bool
    ) -> Answer | None:
        self._note_reply()
        if reply.status in _REFUSED and self._questions.adapt(body, reply.body):
            return None
        answer = answer_of(reply)
        if isinstance(answer, Garbled) and not is_last:
            return answer
        if self._may_keep(answer):
            await asyncio.to_thread(self._answers.put, question.key, reply.to_bytes())
        return answer

    def _may_keep(self, answer: Caption | RejectedCaption) -> bool:
        """Return whether the server is known to answer as a captioner does, and note this answer.

        Raises CheckpointError if its first answers show that it is none, or not for these rules.
        """
        if self._is_proven:
            return True
        fault = self._fault(answer)
        if fault is None:
            self._is_proven = True
            return True
        self._faults.append(str(fault))
        if len(self._faults) == FIRST_ANSWERS:
            raise CheckpointError(
                f"none of the first {FIRST_ANSWERS} answers of {self._client.name} became a "
                f"caption; the first one: {self._faults[0]}"
            )
        return False

    def _fault(self, answer: Caption | RejectedCaption) -> RejectedCaption | None:
        """Return why an answer is no caption that keeps the house rules; None if it is one."""
        if isinstance(answer, RejectedCaption):
            return answer
        try:
            self._rules.applied(answer)
        except RejectedCaption as error:
            return error
        return None

    async def _send(self, body: dict[str, Any]) -> Reply:
        """Send a request within the budget; raise Trouble unless the reply is an answer."""
        data = json.dumps(body).encode()
        await asyncio.to_thread(self._budget.begin)  # it may write to a store
        usage = None
        try:
            reply = await self._client.post(data)
            reply = replace(reply, status=status_of(reply))
            usage = usage_of(reply)
        except Trouble as trouble:
            usage = {} if trouble.is_unreachable else None
            raise
        finally:
            self._budget.end(usage)
        self._check(reply)
        return reply

    def _check(self, reply: Reply) -> None:
        """Raise Trouble for a reply that another time may better, CheckpointError for a refusal."""
        status = reply.status
        reason = f"status {status}: {shown(reply.body.decode(errors='replace'))}"
        if status in _BUSY or status >= 500:
            is_busy = status in _BUSY
            wait = reply.retry_after
            raise Trouble(reason, is_busy=is_busy, blame=not is_busy, retry_after=wait)
        if status == 402:
            raise CaptionerUnavailable(f"{self._client.name} wants to be paid: {reason}")
        if status in _REMEDIES:
            remedy = _REMEDIES[status].format(model=self._model)
            raise CheckpointError(f"{self._client.name} {remedy} ({reason})")
        if status < 200 or 300 <= status < 400:
            raise CheckpointError(
                f"{self._client.name} is elsewhere: set OPENAI_BASE_URL ({reason})"
            )

    def _note_reply(self) -> None:
        self._patience.replied()
        self._in_flight.replied()

    async def _pause(self, trouble: Trouble, began: float) -> None:
        """Wait until another try makes sense; raise CaptionerUnavailable if none does."""
        self._patience.endure(trouble)
        await self._in_flight.pause(self._in_flight.troubled(trouble, began))

    async def _answers_otherwise(self) -> bool:
        """Return whether the server answers about a harmless image, be it with a refusal."""
        question = await asyncio.to_thread(self._questions.about, _HARMLESS)
        try:
            async with self._in_flight.slot() as began:
                await self._send(self._questions.body(question))
        except Trouble as trouble:
            await self._pause(trouble, began)
            return False
        self._note_reply()
        return True


def _read(kept: bytes | None) -> Caption | RejectedCaption | None:
    """Return a kept answer; None if there is none, or it is damaged."""
    try:
        answer = None if kept is None else answer_of(Reply.from_bytes(kept))
    except ValueError:
        return None
    return None if isinstance(answer, Garbled) else answer
