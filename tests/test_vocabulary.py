"""Words, ids and sentences."""

import pytest

from captioner.vocabulary import EOS, PAD, SPECIAL_WORDS, UNKNOWN, Vocabulary, sentence, tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog runs .", ["a", "dog", "runs"]),
        ('"Stop!" , he said', ["stop", "he", "said"]),
        ("a man's t-shirt", ["a", "man", "'s", "t-shirt"]),
        ("a man 's hat", ["a", "man", "'s", "hat"]),
        ("2 dogs don\u2019t", ["2", "dogs", "don", "t"]),
        ("...", []),
    ],
)
def test_captions_are_split_into_words_without_punctuation(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


def test_words_make_a_sentence() -> None:
    assert sentence(["a", "man", "'s", "hat"]) == "A man's hat."
    assert sentence([]) == ""


def test_a_vocabulary_keeps_frequent_words_the_most_frequent_first() -> None:
    vocabulary = Vocabulary.build(["a dog", "a cat and a dog", "the end"], min_count=2)
    assert vocabulary.words == (*SPECIAL_WORDS, "a", "dog")


def test_encoding_and_decoding_are_inverse_for_known_words() -> None:
    vocabulary = Vocabulary.build(["two dogs run on the grass"], min_count=1)
    ids = vocabulary.encode("The dogs run")
    assert vocabulary.decode(ids) == ["the", "dogs", "run"]
    assert vocabulary.encode("dogs fly")[1] == UNKNOWN
    assert vocabulary.decode([*ids, EOS, ids[0]]) == ["the", "dogs", "run"]
    assert vocabulary.decode([PAD, UNKNOWN]) == []


def test_a_vocabulary_without_special_words_or_with_a_word_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="starts with"):
        Vocabulary(("a", "dog"))
    with pytest.raises(ValueError, match="once"):
        Vocabulary((*SPECIAL_WORDS, "a", "a"))
