"""Words, ids and sentences."""

import numpy as np
import pytest

from captioner.lstm.vocabulary import (
    EOS,
    PAD,
    SPECIAL_WORDS,
    UNKNOWN,
    Vocabulary,
    sentence,
    tokenize,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog runs .", ["a", "dog", "runs"]),
        ('"Stop!" , he said', ["stop", "he", "said"]),
        ("a man's t-shirt", ["a", "man", "'s", "t-shirt"]),
        ("a man 's hat", ["a", "man", "'s", "hat"]),
        ("a man\u2019s hat", ["a", "man", "'s", "hat"]),
        ("2 dogs don\u2019t", ["2", "dogs", "don't"]),
        ("A caf\u00e9 on a stra\u00dfe", ["a", "caf\u00e9", "on", "a", "stra\u00dfe"]),
        ("a cafe\u0301", ["a", "caf\u00e9"]),
        ("\u5317\u4eac \u2014 snake_case", ["\u5317\u4eac", "snake", "case"]),
        ("...", []),
    ],
)
def test_captions_are_split_into_words_without_punctuation(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


def test_words_make_a_sentence() -> None:
    assert sentence(["a", "man", "'s", "hat"]) == "A man's hat."
    assert sentence([]) == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a orange ball", "An orange ball."),
        ("in a SUV", "In an SUV."),
        ("a ATV and a BMX bike", "An ATV and a BMX bike."),
        ("an dog on an unicycle", "A dog on a unicycle."),
        ("a unusual hat", "An unusual hat."),
        ("a Asian man for a hour", "An Asian man for an hour."),
        ("a european at a university", "A european at a university."),
        ("a US flag on a UFO", "A US flag on a UFO."),
        ("a usual, an", "A usual, an."),
        ("a unidentified ukulele", "An unidentified ukulele."),
        ("an ukulele and a X-ray", "A ukulele and an X-ray."),
        ("a 8 and a 18 and a 80", "An 8 and an 18 and an 80."),
        ("such a", "Such a."),
    ],
)
def test_the_article_fits_the_sound_of_the_next_word(words: str, text: str) -> None:
    assert sentence(words.split()) == text


def test_words_have_their_usual_spelling_within_captions() -> None:
    captions = ["The man watches TV", "A TV", "a tv", "the american", "An American", "an American"]
    vocabulary = Vocabulary.build(captions, min_count=1)
    assert {"TV", "American", "the", "man"} <= set(vocabulary.words)
    assert vocabulary.encode("tv") == vocabulary.encode("TV")
    assert sentence(vocabulary.decode(vocabulary.encode("the tv"))) == "The TV."


def test_a_vocabulary_keeps_frequent_words_in_order_of_frequency() -> None:
    vocabulary = Vocabulary.build(["a dog", "a cat and a dog", "the end"], min_count=2)
    assert vocabulary.words == (*SPECIAL_WORDS, "a", "dog")


def test_encoding_and_decoding_are_inverse_for_known_words() -> None:
    vocabulary = Vocabulary.build(["two dogs run on the grass"], min_count=1)
    ids = vocabulary.encode("The dogs run")
    assert vocabulary.decode(ids) == ["the", "dogs", "run"]
    assert vocabulary.encode("dogs fly")[1] == UNKNOWN
    assert vocabulary.decode([*ids, EOS, ids[0]]) == ["the", "dogs", "run"]
    assert vocabulary.decode(np.array([*ids, EOS, ids[0]])) == ["the", "dogs", "run"]
    assert vocabulary.decode([PAD, UNKNOWN]) == []


def test_a_vocabulary_without_special_words_or_with_a_duplicate_is_refused() -> None:
    with pytest.raises(ValueError, match="starts with"):
        Vocabulary(("a", "dog"))
    with pytest.raises(ValueError, match="once"):
        Vocabulary((*SPECIAL_WORDS, "a", "A"))
