"""A mended caption -> the rule that it breaks, if any."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from captioner.house_rules.language import is_in
from captioner.lstm.vocabulary import tokenize
from captioner.words import FUNCTION_WORDS

_ENDINGS = (
    r"com|org|net|edu|gov|info|io|app|dev|biz|xyz|co\.uk|de|fr|ru|cn|ly|gg|eu|jp|br|ch|nl|pl|kr|tv|"
    r"cc|ws|ai|onion|example|website"
)
_WORDS_AS_ENDINGS = (  # so that one letter before them is no name of a server
    r"co|me|be|us|uk|au|in|it|es|at|ca|se|no|to|gl|shop|store|online|site|top|club|live|link|click|"
    r"news|blog|pro|space|fun|page|one|win|vip|art|tech"
)
_FILES = "jpe?g|png|gif|webp|tiff?|bmp|heic|svg|pdf|exe|html?|php|js|py|sh|txt|json|csv|xml|zip"
_FORBIDDEN = {
    "has a special token": re.compile(
        r"<\||</?(?:unk|mask|pad|s|bos|eos|sep|cls|image|img|start|end)>|"
        r"\[(?:UNK|MASK|PAD|CLS|SEP|BOS|EOS|/?INST)\]",
        re.IGNORECASE,
    ),
    "has an e-mail address": re.compile(r"\w@\w"),
    "has a web address": re.compile(
        rf"://|\b(?:www|ftp)\.\w|(?:\w\.(?:{_ENDINGS})|\w\w\.(?:{_WORDS_AS_ENDINGS}))(?:\.[a-z]{{2}})?"
        r"\b(?!\.\w)|[a-z\d-]\.[a-z]{2,}/\w|\b\d{1,3}(?:\.\d{1,3}){3}\b|"
        r"\b(?:javascript|data|vbscript|mailto|file|ftp|magnet|tel|sms|bitcoin):\S",
        re.IGNORECASE,
    ),
    "has a file path": re.compile(
        rf"(?<![\w/<])[.~]{{0,2}}/\w|\b[a-z]:[\\/]|\w\.(?:{_FILES})\b", re.IGNORECASE
    ),
    "has markup or code": re.compile(r"[<>{}\\|*`]|&#?\w{2,32};|\w=[\"'“]|\w\(\)|;--"),
}
_STARTS = {
    "begins like a formula": re.compile(r"[\"'“‘]?[=+@]"),
    "speaks of the request": re.compile(
        r"I(?:['’](?:m|d|ve)| am| can| could| do| have| would| was)\b|I (?:cannot|apologi[sz]e)\b|"
        r"(?:so |very )?sorry(?:[,.;:!…]| (?:but|for|about|that|i|we)\b)|"
        r"unfortunately\b|as an? (?:AI|language model)\b|"
        r"please (?:provide|upload|share|attach|send)\b.{0,40}\b(?:image|photo|picture|file|it|one)"
        r"\b|please (?:note that|let me)\b|"
        r"there is no (?:image|photo|picture)(?: (?:here|above|attached|provided|given|uploaded|"
        r"visible|available|shown))?(?:[,.;:!…]| to (?:caption|describe|see|show|view|provide)\b|"
        r",? (?:and|but|so) (?:i|we|please)\b)",
        re.IGNORECASE,
    ),
}
QUESTION_MARKS = ("?", "\uff1f", "\u061f")  # the last two of Chinese and of Arabic
_UNFINISHED = frozenset(tokenize("a an the and or but of with their its my your"))
_LETTER_A = re.compile(r"\w [\"'“‘]?A[\"'”’]?\.\Z")
# With all characters of ASCII, because those that it lacks take long.
_WITHOUT_PUNCTUATION = {
    **{code: chr(code) for code in range(128)},
    **str.maketrans(dict.fromkeys('.,;:!?"()[]/…“”„«»「」『』、。，！？', " ")),
}
_LONG_WORD = 24  # characters of a word that may be a loop, or of a text without spaces
_LETTER_LOOP = re.compile(r"(\D.{0,19}?)\1{3}")


def forbidden_content(text: str) -> str | None:
    """Return what a caption has that none may have, as in "has a web address"; None without it."""
    return next((rule for rule, pattern in _FORBIDDEN.items() if pattern.search(text)), None)


def broken_rule(text: str, max_characters: int, language: str | None) -> str | None:
    """Return what is wrong with the sentence, as in "repeats itself"; None if it keeps the rules.

    With a `language`, the words have to be of it.
    """
    words = text.lower().translate(_WITHOUT_PUNCTUATION).split()
    if len(text) > max_characters:
        return f"has more than {max_characters} characters and cannot be cut"
    for rule, start in _STARTS.items():
        if start.match(text):
            return rule
    if text.endswith(QUESTION_MARKS):
        return "is a question"
    if not _is_complete(words) and not _LETTER_A.search(text):
        return "is no complete sentence"
    if repeats_itself(words):
        return "repeats itself"
    if language is not None and not is_in(language, text):
        return f"is not in the language {language}"
    return None


def repeats_itself(words: Sequence[str]) -> bool:
    """Return whether words are in a loop, which beam search with its constraints never is.

    A loop is a word four times or a pair three times in a row, or a trigram three times anywhere,
    unless it ends with a function word, as in a list of people: "a man in", "a man in".
    """
    if max(map(len, words), default=0) >= _LONG_WORD and _LETTER_LOOP.search(" ".join(words)):
        return True
    if len(words) - len(set(words)) < 3:
        return False
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(trigrams)) == len(trigrams):
        return False
    word_loop = any(first == second for first, second in pairwise(trigrams))
    pairs = list(pairwise(trigrams))
    pair_loop = any(first == second for first, second in zip(pairs, pairs[2:], strict=False))
    counts = Counter(trigram for trigram in trigrams if trigram[2] not in FUNCTION_WORDS)
    return word_loop or pair_loop or max(counts.values(), default=0) >= 3


def _is_complete(words: Sequence[str]) -> bool:
    has_word = any((len(word) > 1 and not word.isdigit()) or not word.isascii() for word in words)
    return has_word and not FUNCTION_WORDS.issuperset(words) and words[-1] not in _UNFINISHED
