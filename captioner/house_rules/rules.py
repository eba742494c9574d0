"""HouseRules: what every caption keeps, whoever wrote it."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from captioner.caption import Alternative, Caption
from captioner.errors import RejectedCaption
from captioner.house_rules.characters import visible
from captioner.house_rules.markup import unwrapped, without_thoughts
from captioner.house_rules.opening import without_opening
from captioner.house_rules.sentence import one_sentence
from captioner.house_rules.verdict import broken_rule, forbidden_content

_LONGEST = 4_000  # characters of an answer that are read
_PASSES = 8  # of mending: each may uncover what the next mends
_QUOTED = 200  # characters of an answer in the message about it
_MESSAGE = 300
_PLAIN = re.compile(r"[A-Z][a-z]*(?:(?:, |[ '-])[A-Za-z0-9]+)*\.")  # nothing to mend


@dataclass(frozen=True)
class HouseRules:
    """The rules for a job's captions.

    One sentence of at most `max_characters`, in a `language` (an ISO 639-1 code; None if the
    captioner knows no other).
    """

    max_characters: int = 125
    language: str | None = "en"

    def applied(self, caption: Caption) -> Caption:
        """Return a caption that keeps the rules; raise RejectedCaption if it cannot be mended.

        Alternatives that cannot are left out. A caption that keeps the rules is returned as it is.
        One that lost words has no log-probabilities: those of the answer were of all its words.
        """
        text, broken = self._mended(caption.text)
        if broken:
            raise RejectedCaption(_message(broken, caption.text))
        others = tuple(self._mended_alternatives(text, caption.alternatives))
        if text == caption.text and others == caption.alternatives:
            return caption
        words = caption.words if text == caption.text else ()
        mended = replace(caption, text=text, alternatives=others, words=words)
        if _has_letters_of(text, caption.text):
            return mended
        return replace(mended, log_prob=None, token_log_probs=None)

    def _mended_alternatives(
        self, text: str, alternatives: Iterable[Alternative]
    ) -> Iterator[Alternative]:
        """Yield the alternatives that keep the rules and differ from each other and a text."""
        seen = {text}
        for each in alternatives:
            mended, broken = self._mended(each.text)
            if not broken and mended not in seen:
                seen.add(mended)
                is_whole = _has_letters_of(mended, each.text)
                log_prob = each.log_prob if is_whole else None
                yield each if mended == each.text else Alternative(mended, log_prob)

    def _mended(self, text: str) -> tuple[str, str | None]:
        """Return a text, mended where possible, and the rule that it still breaks."""
        is_plain = len(text) <= self.max_characters and _PLAIN.fullmatch(text)
        if is_plain and without_opening(text) == text:
            return text, broken_rule(text, self.max_characters, self.language)
        text = without_thoughts(text)[:_LONGEST]
        for _ in range(_PASSES):
            former, text = text, self._mended_once(text)
            if text == former:
                return text, forbidden_content(text) or broken_rule(
                    text, self.max_characters, self.language
                )
        return text, "cannot be mended"

    def _mended_once(self, text: str) -> str:
        return one_sentence(unwrapped(visible(text)), self.max_characters)


def _has_letters_of(mended: str, answer: str) -> bool:
    """Return whether a mended text has all letters and digits of an answer."""
    return mended == answer or _letters(mended) == _letters(answer)


def _letters(text: str) -> list[str]:
    return [*filter(str.isalnum, unicodedata.normalize("NFC", text).casefold())]


def _message(broken: str, answer: str) -> str:
    """Return what is wrong with an answer, and the answer itself, with nothing invisible in it."""
    message = f"the answer {broken}: {answer[:_QUOTED]!r}"
    shortened = len(answer) > _QUOTED or len(message) > _MESSAGE
    return f"{message[: _MESSAGE - 3]}..." if shortened else message
