"""A text -> one sentence that begins with a capital and ends with a full stop."""

import re

from captioner.house_rules.opening import without_opening
from captioner.house_rules.verdict import QUESTION_MARKS
from captioner.lstm.vocabulary import tokenize
from captioner.words import FUNCTION_WORDS

_LOOSE_SPACE = re.compile(r" (?=[.,](?: |$)|'s\b|\))|(?<=\() ")
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)' [^']*'(?!\w)")
_STOP = re.compile(
    r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”]?|(?<=[a-z]{2})[.!?](?=[A-Z][a-z]* )"
)
_SMALL_STOP = re.compile(  # before a small letter, as captioners write that know no capitals
    r"\b(?!(?:approx|ave|blvd|capt|dept|est|etc|ext|fig|gen|hon|hwy|inc|incl|lbs|ltd|max|min|misc|"
    r"mrs|prof|rev|sgt|tel|temp|vol|yrs)\b)[a-z]{3,}[.!]\Z"
)
_INTERJECTION = re.compile(r"\s*\S+ ?!+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|mt|ft|jr|sr|no|nr|vs|prof|gen|col|lt|sgt|capt|rev|hon|ave|blvd|inc|"
    r"ltd|co|dept|approx|e\.g|i\.e|ca)|\b[A-Z])\.$",
    re.IGNORECASE,
)
_CUT = re.compile(  # where a sentence may end before it does
    r"[,;:] |[，、；]| [–—-] | \(| (?:while|with|at|by|during|behind|beside|near|under|through|on|"
    r"in|against|before|after|over|across|into|from|for|surrounded) "
)
_DETERMINERS = frozenset(tokenize("all another both more most one other several such"))
_CLAUSE = frozenset(tokenize("and as because when where while whilst"))
_FULL_STOPS = "。।۔።։"  # of other scripts
_END = f" .,;:!?…！？،؛|/([–—-{_FULL_STOPS}"
_START = f"{_END})]}}•·”’»%#"
_CLOSING = "\"'”’»)]」』"
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_MIN_WORDS, _MIN_CHARACTERS = 3, 6  # of a sentence that was cut; characters without spaces
_MIN_CLAUSE = 5  # words from which on a clause may be complete


def one_sentence(text: str, max_characters: int) -> str:
    """Return the first sentence, shortened if it has more characters and can be cut."""
    text = without_opening(_without_loose_spaces(text)).lstrip(_START)
    text = _first(text)
    if text.endswith(QUESTION_MARKS) and text[:-1].rstrip()[-1:] not in _CLOSING:
        return _capitalised(text)  # and rejected
    stop = text[-1:] if text[-1:] in _FULL_STOPS else ""
    text = _fitted(_without_end(text), max_characters - 1)
    return f"{_capitalised(text)}{stop or _full_stop(text)}" if text else ""


def _without_loose_spaces(text: str) -> str:
    """Return a text with single spaces, without those that a tokenizer left."""
    text = _LOOSE_SPACE.sub("", " ".join(text.split()))
    return _QUOTED.sub(
        lambda quoted: f"{quoted[0][0]}{quoted[0][1:-1].strip()}{quoted[0][0]}", text
    )


def _first(text: str) -> str:
    """Return the first sentence that is no question and no "Wow!", or else the last one."""
    start = 0
    for stop in _STOP.finditer(text):
        if _ends_sentence(text, stop):
            sentence = text[start : stop.end()]
            is_question = not set(QUESTION_MARKS).isdisjoint(stop[0])
            if not is_question and not _INTERJECTION.fullmatch(sentence):
                return sentence
            start = stop.end()
    return text[start:].lstrip()


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    """Return whether another sentence follows a stop."""
    after = text[stop.end() : stop.end() + 8].lstrip(" \"'“‘«(¿¡")
    is_quoted = text.count('"', 0, stop.start()) % 2
    if not after or is_quoted:
        return False
    if after[0].islower():
        return bool(_SMALL_STOP.search(text, max(0, stop.start() - 20), stop.end()))
    return not _ABBREVIATION.search(text, max(0, stop.start() - 8), stop.start() + 1)


def _without_end(text: str) -> str:
    """Return a sentence without the punctuation at its end, even if that is in quotation marks."""
    text = text.rstrip(_END)
    inner = text.rstrip(_CLOSING)
    return inner.rstrip(" .,;:…") + text[len(inner) :] if inner else text


def _fitted(text: str, room: int) -> str:
    """Return a sentence of at most `room` characters; the whole one if it cannot be cut."""
    if len(text) <= room:
        return text
    heads = (text[: cut.start()] for cut in _CUT.finditer(text, 0, room + 1))
    return max(filter(_is_sentence, heads), key=_completeness, default=text)


def _completeness(head: str) -> tuple[bool, int]:
    """Return how complete a sentence is: a clause at its end with few words may be half of one."""
    return _CLAUSE.isdisjoint(head.lower().split()[1 - _MIN_CLAUSE :]), len(head)


def _is_sentence(head: str) -> bool:
    words = head.lower().split()
    enough = len(words) >= _MIN_WORDS or (_CJK.search(head) and len(head) >= _MIN_CHARACTERS)
    ends = bool(words) and words[-1] not in FUNCTION_WORDS | _DETERMINERS
    closed = head.count('"') % 2 == 0 and head.count("(") == head.count(")")
    return bool(enough) and ends and closed and head.count("“") == head.count("”")


def _capitalised(text: str) -> str:
    """Return a text with a capital, unless its first word, such as iPhone, has one elsewhere."""
    start = next((n for n, character in enumerate(text) if character.isalnum()), 0)
    word = text[start:].split(" ", 1)[0]
    return text if word != word.lower() else text[:start] + text[start].upper() + text[start + 1 :]


def _full_stop(text: str) -> str:
    return "。" if _CJK.match(text.rstrip(_CLOSING)[-1:]) else "."
