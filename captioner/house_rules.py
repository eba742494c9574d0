"""House rules: what every caption keeps, whoever wrote it."""

from dataclasses import dataclass

from captioner.caption import Caption


@dataclass(frozen=True)
class HouseRules:
    """The rules for a job's captions.

    One sentence of at most `max_characters`, in a `language` (an ISO 639-1 code; None if the
    captioner knows no other).
    """

    max_characters: int = 125
    language: str | None = "en"

    def applied(self, caption: Caption) -> Caption:
        """Return a caption that keeps the rules; raise RejectedCaption if it cannot be mended."""
        return caption
