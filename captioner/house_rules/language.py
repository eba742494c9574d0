"""Whether a caption is in the language of the job: by its script, and by its words."""

import re
import unicodedata
from functools import cache

try:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier
except ImportError:  # only the script is looked at
    LanguageIdentifier = None

# Scripts by the names that Unicode gives to letters; all other languages have Latin ones.
_SCRIPTS = {
    **dict.fromkeys(("be", "bg", "kk", "ky", "mk", "mn", "ru", "tg", "uk"), ("CYRILLIC",)),
    "sr": ("CYRILLIC", "LATIN"),
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL",),
    "el": ("GREEK",),
    **dict.fromkeys(("ar", "fa", "ps", "ug", "ur"), ("ARABIC",)),
    **dict.fromkeys(("he", "yi"), ("HEBREW",)),
    **dict.fromkeys(("hi", "mr", "ne", "sa"), ("DEVANAGARI",)),
    **dict.fromkeys(("as", "bn"), ("BENGALI",)),
    **dict.fromkeys(("am", "ti"), ("ETHIOPIC",)),
    "gu": ("GUJARATI",),
    "hy": ("ARMENIAN",),
    "ka": ("GEORGIAN",),
    "km": ("KHMER",),
    "kn": ("KANNADA",),
    "lo": ("LAO",),
    "ml": ("MALAYALAM",),
    "my": ("MYANMAR",),
    "pa": ("GURMUKHI",),
    "si": ("SINHALA",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "th": ("THAI",),
}
_OTHERS = (  # that a captioner might answer in
    *("ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi"),
    *("hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk"),
    *("sl", "sv", "th", "tr", "uk", "vi", "zh"),
)
# How many nats likelier another language has to be. 41,731 English references have 13.4 at most,
# full sentences in other languages rarely less than 18.
_MARGIN = 16.0
_MIN_WORDS = 5  # to judge by when words with accents are left out
_QUOTATION = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|„[^“”]*[“”]|(?<!\w)['‘][^'’]*['’](?!\w)")


def is_in(language: str, text: str) -> bool:
    """Return whether a text may be in a language, an ISO 639-1 code.

    The script always counts. With py3langid, so do the words, without quotations and names: it
    takes a clear case for this to be False.
    """
    if not _is_in_script(language, text):
        return False
    if LanguageIdentifier is None:
        return True
    words = _own_words(text)
    scores = dict(_identifier(language).rank(words)) if words else {}
    return language not in scores or max(scores.values()) - scores[language] <= _MARGIN


def _is_in_script(language: str, text: str) -> bool:
    """Return whether at least half of the letters belong to the scripts of a language."""
    scripts = _SCRIPTS.get(language, ("LATIN",))
    letters = [unicodedata.name(character, "") for character in text if character.isalpha()]
    return 2 * sum(name.startswith(scripts) for name in letters) >= len(letters)


def _own_words(text: str) -> str:
    """Return the words of a text that say what language it is in."""
    words = _QUOTATION.sub(" ", text).split()
    words = [word for n, word in enumerate(words) if n == 0 or not word[0].isupper()]
    plain = [word for word in words if word.isascii()]  # "crème brûlée" is English, too
    return " ".join(plain if len(plain) >= _MIN_WORDS else words)


@cache
def _identifier(language: str) -> "LanguageIdentifier":
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = {language} & set(identifier.labels)
    identifier.set_languages([*_OTHERS, *known])
    return identifier
