"""Doubtful nouns give way to general ones, where the sentence stays one."""

import math

import pytest
import torch

from captioner.lstm.back_off import BackOff
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.constraints import WordRules
from captioner.lstm.vocabulary import EOS, SPECIAL_WORDS, Vocabulary, sentence, tokenize
from captioner.words import KINDS, PLURALS

WORDS = tokenize(
    """
    a an the of herd two white teddy cat dog bear sheep animal animals man men person people
    train tracks vehicle sits sitting on bed hot and is are this
    """
)
VOCABULARY = Vocabulary((*SPECIAL_WORDS, *WORDS))
RULES = WordRules.of_vocabulary(VOCABULARY, torch.device("cpu"))


def said_instead(text: str, doubted: str, most: int = 125) -> tuple[str, torch.Tensor]:
    """Return a caption after the words in `doubted` have been doubted, and the word presence."""
    ids = VOCABULARY.encode(text)
    tokens = torch.tensor([[[*ids, EOS]]])
    zeros = torch.zeros(1, 1)
    before = Hypotheses(tokens, torch.zeros(tokens.shape), zeros, zeros)
    presence = torch.full((1, len(VOCABULARY)), math.log(0.1))
    places = [(0, text.split().index(word)) for word in doubted.split()]
    after, presence = BackOff(VOCABULARY, RULES.lengths, most)(before, presence, places)
    assert torch.equal(before.tokens, tokens)
    return sentence(VOCABULARY.decode(after.tokens[0, 0].tolist())), presence[0]


@pytest.mark.parametrize(
    ("text", "doubted", "expected"),
    [
        ("a cat sitting on a bed", "cat", "An animal sitting on a bed."),
        ("the white cat", "cat", "The white animal."),
        ("two men and a dog", "men dog", "Two people and an animal."),
        ("herd of sheep on a bed", "sheep", "Herd of animals on a bed."),
        ("the sheep are sitting", "sheep", "The animals are sitting."),
        ("a herd of sheep is sitting", "sheep", "A herd of animals is sitting."),
        ("this cat is sitting", "cat", "This animal is sitting."),
        # It would not be English, or say something else.
        ("a white sheep", "sheep", "A white sheep."),
        ("the sheep is sitting", "sheep", "The sheep is sitting."),
        ("this sheep on a bed", "sheep", "This sheep on a bed."),
        ("a teddy bear on a bed", "bear", "A teddy bear on a bed."),
        ("a hot dog", "dog", "A hot dog."),
        ("a man on train tracks", "train", "A man on train tracks."),
        ("a cat sits on a bed", "cat", "A cat sits on a bed."),
        # Nothing is said twice, and what nobody doubts stays.
        ("a cat and a dog", "dog cat", "A cat and an animal."),
        ("a cat and an animal", "cat", "A cat and an animal."),
        ("a cat on a bed", "bed", "A cat on a bed."),
    ],
)
def test_a_doubtful_noun_gives_way(text: str, doubted: str, expected: str) -> None:
    assert said_instead(text, doubted)[0] == expected


def test_a_caption_does_not_become_too_long() -> None:
    text = "a man on a bed"
    enough = len("A person on a bed.")
    assert said_instead(text, "man", enough + 2)[0] == "A person on a bed."
    assert said_instead(text, "man", enough - 1)[0] == "A man on a bed."


def test_a_general_word_is_as_present_as_its_kinds_together() -> None:
    presence = said_instead("a cat on a bed", "cat")[1].exp()
    animal, cat = VOCABULARY.encode("animal cat")
    assert presence[animal] == pytest.approx(1 - 0.9**4)  # cat, dog, bear, animal
    assert presence[cat] == pytest.approx(0.1)


def test_kinds_are_named_once_and_plurals_are_general_words() -> None:
    kinds = [kind for of_general in KINDS.values() for kind in of_general]
    assert len(kinds) == len(set(kinds))
    assert set(KINDS) > PLURALS
